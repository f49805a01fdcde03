"""What it means: a provider's report as one of our events, or nothing.

`read(provider, raw)` gives {kind, at, message_id?, provider_id?, phone?, address?, detail}, or None for what is no news (queued,
sent). Nothing of a person is taken over except the number of somebody who replied, or the address of a suppression list that names
no message: by those the message is found, and they are not kept.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

# programs that follow links or load pictures: nobody has read anything
_MACHINE = re.compile(
    r"bot\b|crawl|spider|scan|proxy|preview|barracuda|mimecast|proofpoint|safelinks|GoogleImageProxy|YahooMailProxy|"
    r"python-requests|curl/|wget|Go-http-client|HeadlessChrome|^$",
    re.IGNORECASE,
)
# the words networks and providers take as "no more"; the whole message, in any case
_STOP = re.compile(
    r"\W*(stop|stopall|unsubscribe|cancel|end|quit|arret|arrêt|abmelden|수신거부|配信停止)\W*", re.IGNORECASE
)
_STATUS = re.compile(r"\b([45])\.(\d{1,3})\.(\d{1,3})\b")
_HARD = frozenset({"5.1.0", "5.1.1", "5.1.2", "5.1.3", "5.1.6", "5.1.10", "5.2.1"})

Event = dict[str, Any]


def read(provider: str, raw: Mapping[str, Any]) -> Event | None:
    """The event of one report; None when it is no news. Raises ValueError for what the provider does not document."""
    reader = {
        "ses": _ses, "sendgrid": _sendgrid, "mailgun": _mailgun, "postmark": _postmark, "sms": _twilio, "webhook": _own,
    }[provider]  # fmt: skip
    try:
        return reader(raw)
    except (KeyError, TypeError, AttributeError, IndexError, OverflowError, OSError) as error:
        raise ValueError(f"not understood: {type(error).__name__}") from None


def _event(kind: str, at: Any, key: Any, provider_id: Any, **detail: Any) -> Event:
    kept = {name: value for name, value in detail.items() if value not in (None, "")}
    return {"kind": kind, "at": _time(at), "message_id": _text(key), "provider_id": _text(provider_id), "detail": kept}


def _visit(kind: str, agent: str, machine: bool = False) -> str:
    return "scanned" if machine or _MACHINE.search(agent) else kind


def _ses(raw: Mapping[str, Any]) -> Event | None:  # noqa: PLR0911 - a line per kind
    mail = raw["mail"]
    kind = str(raw.get("eventType") or raw.get("notificationType"))
    headers = {h["name"].lower(): h["value"] for h in mail.get("headers") or []}
    key = (mail.get("tags", {}).get("msg_key") or [headers.get("x-msg-key")])[0]
    found = mail["messageId"]
    match kind:
        case "Delivery":
            return _event("delivered", raw["delivery"]["timestamp"], key, found)
        case "DeliveryDelay":
            return _event("deferred", raw["deliveryDelay"]["timestamp"], key, found)
        case "Bounce":
            told = raw["bounce"]
            status = str((told.get("bouncedRecipients") or [{}])[0].get("status") or "")
            permanent = told["bounceType"] == "Permanent"
            # Suppressed: on the account's list because it bounced before
            hard = permanent and told.get("bounceSubType") in (
                "General",
                "NoEmail",
                "Suppressed",
                "OnAccountSuppressionList",
            )
            return _event("bounced", told["timestamp"], key, found, hard=hard, permanent=permanent, status=status)
        case "Complaint":
            return _event("complained", raw["complaint"]["timestamp"], key, found)
        case "Open" | "Click":
            told = raw[kind.lower()]
            visit = _visit("opened" if kind == "Open" else "clicked", str(told.get("userAgent") or ""))
            return _event(visit, told["timestamp"], key, found)
        case "Subscription":
            return _event("unsubscribed", raw["subscription"]["timestamp"], key, found)
        case "Reject" | "Rendering Failure":
            return _event("bounced", mail["timestamp"], key, found, hard=False, permanent=True)
    return None


def _sendgrid(raw: Mapping[str, Any]) -> Event | None:
    event = _of_sendgrid(raw)
    if event and not event["message_id"] and not event["provider_id"] and raw.get("email"):
        event["address"] = str(raw["email"])  # of a suppression list, which names no message
    return event


def _of_sendgrid(raw: Mapping[str, Any]) -> Event | None:  # noqa: PLR0911 - a line per kind
    at = raw["timestamp"]
    key = raw.get("msg_key")
    # the id of the answer, to which the event adds the machine and the recipient
    found = str(raw.get("sg_message_id") or "").partition(".")[0]
    agent = str(raw.get("useragent") or "")
    match str(raw["event"]).lower():
        case "delivered":
            return _event("delivered", at, key, found)
        case "deferred":
            return _event("deferred", at, key, found, status=_status(raw.get("response")))
        case "bounce":
            status = str(raw.get("status") or "") or _status(raw.get("reason"))
            blocked = raw.get("type") == "blocked"
            hard = not blocked and status in _HARD
            return _event("bounced", at, key, found, hard=hard, permanent=not blocked, status=status)
        case "dropped":
            # their own list: what bounced or complained there before is not told apart
            return _event("bounced", at, key, found, hard=False, permanent=True)
        case "spamreport":
            return _event("complained", at, key, found)
        case "unsubscribe" | "group_unsubscribe":
            return _event("unsubscribed", at, key, found)
        case "open":
            return _event(_visit("opened", agent, bool(raw.get("sg_machine_open"))), at, key, found)
        case "click":
            return _event(_visit("clicked", agent), at, key, found)
    return None


def _mailgun(raw: Mapping[str, Any]) -> Event | None:  # noqa: PLR0911 - a line per kind
    at = raw["timestamp"]
    key = (raw.get("user-variables") or {}).get("msg_key")
    headers = (raw.get("message") or {}).get("headers") or {}
    found = str(headers.get("message-id") or "").strip("<>").partition("@")[0]
    client = raw.get("client-info") or {}
    agent, machine = str(client.get("user-agent") or ""), bool(client.get("bot"))
    match raw["event"]:
        case "delivered":
            return _event("delivered", at, key, found)
        case "failed":
            told = raw.get("delivery-status") or {}
            status = str(told.get("enhanced-code") or "") or _status(told.get("message"))
            if raw.get("severity") == "temporary":
                return _event("deferred", at, key, found, status=status)
            # "suppress-bounce": it bounced there before
            hard = status in _HARD or raw.get("reason") in ("suppress-bounce",)
            return _event("bounced", at, key, found, hard=hard, permanent=True, status=status)
        case "rejected":
            return _event("bounced", at, key, found, hard=False, permanent=True)
        case "complained":
            return _event("complained", at, key, found)
        case "unsubscribed":
            return _event("unsubscribed", at, key, found)
        case "opened" | "clicked" as kind:
            return _event(_visit(kind, agent, machine), at, key, found)
    return None


def _postmark(raw: Mapping[str, Any]) -> Event | None:  # noqa: PLR0911 - a line per kind
    key, found = (raw.get("Metadata") or {}).get("msg_key"), raw.get("MessageID")
    match raw["RecordType"]:
        case "Delivery":
            return _event("delivered", raw["DeliveredAt"], key, found)
        case "Bounce":
            told = raw["Type"]
            if told in ("Transient", "DnsError", "SoftBounce", "SMTPApiError"):
                permanent = told == "SoftBounce"
                return _event(
                    "bounced" if permanent else "deferred", raw["BouncedAt"], key, found, hard=False, permanent=False
                )
            hard = told in ("HardBounce", "BadEmailAddress")
            status = _status(raw.get("Details"))
            return _event("bounced", raw["BouncedAt"], key, found, hard=hard, permanent=True, status=status)
        case "SpamComplaint":
            return _event("complained", raw["BouncedAt"], key, found)
        case "SubscriptionChange":
            if raw.get("SuppressSending") and raw.get("SuppressionReason") == "ManualSuppression":
                return _event("unsubscribed", raw["ChangedAt"], key, found)
        case "Open" | "Click" as kind:
            visit = _visit("opened" if kind == "Open" else "clicked", str(raw.get("UserAgent") or ""))
            return _event(visit, raw["ReceivedAt"], key, found)
    return None


def _twilio(raw: Mapping[str, Any]) -> Event | None:
    status = str(raw.get("MessageStatus") or raw.get("SmsStatus") or "received").lower()
    found = raw.get("MessageSid") or raw.get("SmsSid")
    if status == "received" and raw.get("From"):
        words = str(raw.get("Body") or "")
        stop = str(raw.get("OptOutType") or "").upper() == "STOP" or bool(_STOP.fullmatch(words))
        # what people write is not kept: the reply waits at the provider for whoever answers it
        event = _event("unsubscribed" if stop else "replied", None, None, None, channel="sms")
        return event | {"phone": str(raw["From"])}
    match status:
        case "delivered" | "read":
            return _event("delivered", None, raw.get("m"), found)
        case "undelivered" | "failed":
            code = str(raw.get("ErrorCode") or "")
            hard = code in ("30005", "30006", "21211", "21614")  # unknown, landline, invalid
            return _event("bounced", None, raw.get("m"), found, hard=hard, permanent=True, status=code)
    return None


def _own(raw: Mapping[str, Any]) -> Event | None:
    kind = raw["kind"]
    if kind not in ("delivered", "deferred", "bounced", "complained", "opened", "clicked", "replied", "unsubscribed"):
        raise ValueError("unknown kind")
    told = raw.get("detail") or {}
    return _event(
        kind, raw.get("at"), raw["message_id"], None, hard=bool(told.get("hard")) if kind == "bounced" else None
    )


# ---------------------------------------------------------------- parts


def _time(given: Any) -> str | None:
    """ISO 8601 in UTC; None: the time it was told. Seconds or milliseconds since 1970, or ISO 8601."""
    if given in (None, ""):
        return None
    if isinstance(given, int | float) or str(given).replace(".", "", 1).isdigit():
        number = float(given)
        return datetime.fromtimestamp(number / 1000 if number > 1e11 else number, UTC).isoformat()
    at = datetime.fromisoformat(str(given))
    return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC).isoformat()


def _status(text: Any) -> str:
    hit = _STATUS.search(str(text or ""))
    return hit[0] if hit else ""


def _text(value: Any) -> str | None:
    return str(value)[:200] if value else None
