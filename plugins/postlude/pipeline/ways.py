"""Where messages go out."""

from __future__ import annotations

from datetime import UTC, datetime

from postlude.errors import InputError
from postlude.settings import settings

CHANNELS = ("email", "sms", "webhook", "banner")


def routes(now: datetime | None = None) -> dict[str, tuple[str, str]]:
    """Channel -> channel module and URL it goes through: as set when sending is switched on, else the catcher for all.

    now: the clock of a run by hand. A clock in the past is a rehearsal; it never reaches anybody outside.
    Raises InputError when that is asked for, or when sending is on and mail has no way out.
    """
    config = settings()
    if not config.sending:
        port, reports = config.catcher_smtp_port, f"http://127.0.0.1:{config.catcher_http_port}/api/events"
        url = config.catcher_url or f"smtp://127.0.0.1:{port}?starttls=never&events={reports}"
        return dict.fromkeys(CHANNELS, ("smtp", url))
    if not (config.email_url or config.smtp_url):
        raise InputError(
            "POSTLUDE_SENDING is on but POSTLUDE_SMTP_URL is empty; write e.g. smtp://user:password@relay.example:587"
        )
    if now is not None and datetime.now(UTC) - now > config.max_lag:
        raise InputError(
            f"as of {now:%Y-%m-%d %H:%M} UTC lies in the past and sending is switched on; what is due now is sent by a run of now"
        )
    urls = {
        "email": config.email_url or config.smtp_url,
        "sms": config.sms_url,
        "webhook": config.webhook_url,
        "banner": "banner:" if config.banners else "",
    }
    return {name: (_module_of(url), url) for name, url in urls.items() if url}


def _module_of(url: str) -> str:
    """The channel module a URL names by its scheme."""
    scheme = url.partition(":")[0].lower()
    return "smtp" if scheme == "smtps" else scheme
