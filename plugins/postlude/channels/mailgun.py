"""Mailgun, messages.mime: our own bytes go out as they are.

URL: mailgun://:API_KEY@/mail.shop.example   (or @api.eu.mailgun.net/mail.shop.example; the path is the sending domain)

It has no idempotency key. Our message id goes along as the variable `msg_key`, which its events bring back.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlencode

from postlude.channels import Send
from postlude.channels._http import Answer, Endpoint, Fit, Request, by_status, said, sending
from postlude.channels._lists import Page, Pages, asking
from postlude.errors import InputError
from postlude.message import Message, Outcome, envelope

idempotent = False


@contextmanager
def connect(url: str) -> Iterator[Send]:
    endpoint, login = _parse(url)
    address = f"{endpoint.base}/v3/{quote(endpoint.path)}/messages.mime"

    def build(message: Message, raw: bytes) -> Request:
        fields = [
            ("to", envelope(message.recipient.address)),
            ("v:msg_key", str(message.message_id)),
            ("o:tag", message.campaign_id),
            ("o:tracking", "no"),
        ]
        boundary = f"postlude-{message.message_id.hex}"
        headers = {"authorization": login, "content-type": f"multipart/form-data; boundary={boundary}"}
        return Request("POST", address, headers, _form(fields, raw, boundary))

    with sending(endpoint, build, _judge) as send:
        yield send


def events(url: str, since: datetime) -> Iterator[dict[str, Any]]:
    """Its events come through the landing of web hooks, and through `lists`."""
    return iter(())


def lists(url: str) -> dict[str, Pages]:
    """The events API: oldest first, so each page moves on. Mailgun keeps them a day to 30, by the plan."""
    endpoint, login = _parse(url)

    def pages(since: datetime) -> Iterator[Page]:
        query = {"begin": f"{since.timestamp():.0f}", "ascending": "yes", "limit": "300", "event": " OR ".join(_NEWS)}
        address = f"{endpoint.base}/v3/{quote(endpoint.path)}/events?{urlencode(query)}"
        with asking(endpoint, "mailgun", {"authorization": login}) as ask:
            while items := (told := ask(address))["items"]:
                newest = datetime.fromtimestamp(max(float(item["timestamp"]) for item in items), UTC)
                yield Page([(f"mailgun:{item['id']}", item) for item in items], newest)
                address = told["paging"]["next"]

    return {"events": pages}


_NEWS = ("delivered", "failed", "rejected", "complained", "unsubscribed", "opened", "clicked")


def _parse(url: str) -> tuple[Endpoint, str]:
    endpoint = Endpoint.parse(url, "mailgun", "api.mailgun.net", needs="API_KEY")
    if not endpoint.path or "/" in endpoint.path:
        raise InputError("the mailgun URL must end with the sending domain: mailgun://:API_KEY@/mail.shop.example")
    login = base64.b64encode(f"{endpoint.user or 'api'}:{endpoint.password}".encode()).decode()
    return endpoint, f"Basic {login}"


def _form(fields: list[tuple[str, str]], raw: bytes, boundary: str) -> bytes:
    """multipart/form-data; the mail is base64 inside, so no line of it can be the boundary."""
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields
    ]
    head = (
        f'--{boundary}\r\nContent-Disposition: form-data; name="message"; filename="message.eml"\r\n'
        "Content-Type: message/rfc822\r\n\r\n"
    )
    return b"".join((*parts, head.encode(), raw, f"\r\n--{boundary}--\r\n".encode()))


def _judge(answer: Answer, fit: Fit) -> Outcome:
    if answer.status == 200:
        if found := answer.data.get("id"):
            return Outcome("accepted", reply="200", provider_id=str(found).strip("<>").partition("@")[0])
        return Outcome("ambiguous", reply="200 without a message id")
    told = str(answer.data.get("message") or "")
    text = fit(said(answer, told))
    if answer.status == 400 and told.startswith(("'to'", "to parameter")):
        return Outcome("refused", "recipient", text)
    return by_status(answer, text)
