"""Hands messages to a system of your own (push, WhatsApp, letters, ...) as a signed POST of JSON.

URL: webhook://:SECRET@push.shop.example/messages    (https; `?api=http://127.0.0.1:...` for this machine)

    Postlude-Signature: t=<unix time>,v1=<hex>    HMAC-SHA256 with SECRET over "<t>." and the raw body
    Idempotency-Key: <message id>

The receiver answers 2yz only after it has stored the message, and keeps one copy per Idempotency-Key: a request whose answer
was lost comes again with the same key and body. docs/channels.md shows how to verify.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from postlude.channels import Send
from postlude.channels._http import Answer, Endpoint, Fit, Request, by_status, said, sending
from postlude.message import Message, Outcome, clean
from postlude.tokens import webhook_signature

idempotent = True  # by contract: one copy per Idempotency-Key
REPEAT = 2


@contextmanager
def connect(url: str) -> Iterator[Send]:
    endpoint = Endpoint.parse(url, "webhook", "", needs="SECRET")
    address = f"{endpoint.base}/{endpoint.path}" if endpoint.path else endpoint.base

    def build(message: Message, raw: bytes) -> Request:
        body = json.dumps(payload(message), ensure_ascii=False, sort_keys=True).encode()
        stamp = int(datetime.now(UTC).timestamp())
        headers = {
            "content-type": "application/json",
            "idempotency-key": str(message.message_id),
            "x-msg-key": str(message.message_id),
            "postlude-signature": webhook_signature(endpoint.password, stamp, body),
        }
        return Request("POST", address, headers, body)

    with sending(endpoint, build, _judge, repeat=REPEAT) as send:
        yield send


def events(url: str, since: datetime) -> Iterator[dict[str, Any]]:
    """What happened is told by the receiver, POSTed to /hooks/webhook of the public pages."""
    return iter(())


def payload(message: Message) -> dict[str, Any]:
    """The JSON of one message, version 1. Fields may be added; none is ever taken away."""
    return {
        "version": 1,
        "id": str(message.message_id),
        "campaign": message.campaign_id,
        "kind": message.kind,
        "channel": message.channel,
        "person": str(message.person) if message.person else None,
        "phone": message.phone,
        "email": message.recipient.address if message.channel == "email" else None,
        "subject": clean(message.subject),
        "text": message.text,
        "html": message.html,
        "link": message.link,
        "unsubscribe": message.list_unsubscribe,
        "date": message.date.astimezone(UTC).isoformat(),
        "expires_at": message.expires_at.astimezone(UTC).isoformat() if message.expires_at else None,
    }


def _judge(answer: Answer, fit: Fit) -> Outcome:
    data = answer.data
    if 200 <= answer.status < 300:
        found = data.get("id")
        return Outcome("accepted", reply=str(answer.status), provider_id=clean(str(found), 100) if found else None)
    return by_status(answer, fit(said(answer, data.get("error"))))
