"""Twilio SendGrid, Mail Send API version 3.

URL: sendgrid://:API_KEY@   (or @api.eu.sendgrid.com)

It takes fields, not bytes, so it writes the mail itself. It has no idempotency key. Our message id goes along as the custom
argument `msg_key`, which its events bring back. Its own tracking of clicks and opens stays off: our links carry our tokens.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from postlude.channels import Send
from postlude.channels._http import Answer, Endpoint, Fit, Request, by_status, said, sending
from postlude.channels._lists import Page, Pages, asking
from postlude.message import Address, Message, Outcome, clean, envelope, own_headers

idempotent = False

_SOON = timedelta(minutes=1)


@contextmanager
def connect(url: str) -> Iterator[Send]:
    endpoint = _parse(url)
    headers = {"authorization": f"Bearer {endpoint.password}", "content-type": "application/json"}

    def build(message: Message, raw: bytes) -> Request:
        return Request("POST", f"{endpoint.base}/v3/mail/send", headers, json.dumps(_mail(message)).encode())

    with sending(endpoint, build, _judge) as send:
        yield send


def events(url: str, since: datetime) -> Iterator[dict[str, Any]]:
    """Its events come through the landing of web hooks; what led to a suppression through `lists` as well."""
    return iter(())


def lists(url: str) -> dict[str, Pages]:
    """The suppression lists. They name addresses, not messages: a report is about the newest mail to that address."""
    endpoint = _parse(url)

    def pages_of(name: str, kind: str) -> Pages:
        def pages(since: datetime) -> Iterator[Page]:
            newest, offset = since, 0
            with asking(endpoint, "sendgrid", {"authorization": f"Bearer {endpoint.password}"}) as ask:
                while True:
                    query = {"start_time": f"{since.timestamp():.0f}", "limit": str(_COUNT), "offset": str(offset)}
                    items = ask(f"{endpoint.base}/v3/suppression/{name}?{urlencode(query)}")
                    reports = []
                    for item in items:
                        newest = max(newest, datetime.fromtimestamp(int(item["created"]), UTC))
                        who = hashlib.sha256(str(item["email"]).lower().encode()).hexdigest()[:32]
                        raw = {**item, "event": kind, "timestamp": item["created"]}
                        reports.append((f"sendgrid:list:{kind}:{who}:{item['created']}", raw))
                    yield Page(reports, None)  # the order of the list is not documented
                    offset += len(items)
                    if len(items) < _COUNT:
                        break
            yield Page([], newest)

        return pages

    return {name: pages_of(name, kind) for name, kind in _LISTS.items()}


_LISTS = {"bounces": "bounce", "spam_reports": "spamreport", "unsubscribes": "unsubscribe"}
_COUNT = 500


def _parse(url: str) -> Endpoint:
    return Endpoint.parse(url, "sendgrid", "api.sendgrid.com", needs="API_KEY")


def _mail(message: Message) -> dict[str, Any]:
    content = [{"type": "text/plain", "value": message.text}]
    if message.html.strip():
        content.append({"type": "text/html", "value": message.html})
    mail: dict[str, Any] = {
        "personalizations": [{"to": [_who(message.recipient)]}],
        "from": _who(message.sender),
        "subject": clean(message.subject),
        "content": content,
        "headers": own_headers(message),
        "custom_args": {"msg_key": str(message.message_id)},
        "categories": [message.campaign_id],
        "tracking_settings": {
            "click_tracking": {"enable": False, "enable_text": False},
            "open_tracking": {"enable": False},
            "subscription_tracking": {"enable": False},
        },
    }
    if message.reply_to:
        mail["reply_to"] = _who(message.reply_to)
    return mail


def _who(address: Address) -> dict[str, str]:
    named = {"name": name} if (name := clean(address.name)) else {}
    return {"email": envelope(address.address), **named}


def _judge(answer: Answer, fit: Fit) -> Outcome:
    if answer.status == 202:
        if found := answer.headers.get("x-message-id"):
            return Outcome("accepted", reply="202", provider_id=found)
        return Outcome("ambiguous", reply="202 without a message id")
    errors = [error for error in answer.data.get("errors") or [] if isinstance(error, dict)]
    first = errors[0] if errors else {}
    place = str(first.get("field") or "")
    text = fit(said(answer, place, first.get("message")))
    if answer.status == 400 and ".to." in f"{place}.":
        return Outcome("refused", "recipient", text)
    if answer.status == 400 and place.startswith("from"):
        return Outcome("deferred", "configuration", text, retry_after=_SOON)
    if answer.status == 429 and not answer.retry_after:
        return Outcome("deferred", "relay", text, retry_after=_reset(answer) or _SOON)
    return by_status(answer, text)


def _reset(answer: Answer) -> timedelta | None:
    """SendGrid tells when the limit is lifted as seconds since 1970."""
    given = answer.headers.get("x-ratelimit-reset", "")
    if not (given.isascii() and given.isdigit() and len(given) < 12):
        return None
    wait = datetime.fromtimestamp(int(given), UTC) - datetime.now(UTC)
    return min(max(wait, timedelta(seconds=1)), timedelta(hours=24))
