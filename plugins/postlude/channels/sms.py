"""Text messages through the Twilio API (Messages resource).

URL: sms://ACCOUNT_SID:AUTH_TOKEN@?from=%2B4930123456&callback=https://mail.shop.example/hooks/sms
     (`from`: a number, or a messaging service MG...)

It has no idempotency key. Our message id goes along in the address of the status callback, so every report brings it back.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

from postlude.channels import Send
from postlude.channels._http import Answer, Endpoint, Fit, Request, by_code, said, sending
from postlude.errors import InputError, Refused
from postlude.message import Message, Outcome
from postlude.texting import is_e164

idempotent = False

_CODES = {
    **dict.fromkeys((21211, 21214, 21217, 21614, 21635), "nobody"),  # invalid, not reachable by text, a landline
    **dict.fromkeys((21610, 21612), "recipient"),  # has said STOP to this sender; no route
    **dict.fromkeys(
        (20003, 20005, 20008, 21408, 21601, 21603, 21606, 21611, 21659, 21660, 21661, 21703, 21712), "ours"
    ),
    **dict.fromkeys((20429, 30001, 63038), "busy"),
}


@contextmanager
def connect(url: str) -> Iterator[Send]:
    endpoint = Endpoint.parse(url, "sms", "api.twilio.com", ("from", "callback"), needs="AUTH_TOKEN")
    sender, callback = endpoint.options.get("from", "").strip(), endpoint.options.get("callback", "")
    if not re.fullmatch(r"\+[1-9]\d{6,14}|MG[0-9a-f]{32}|[A-Za-z0-9 ]{1,11}|\d{3,8}", sender):
        raise InputError("the sms URL needs from=: a number like %2B4930123456, a service MG..., or a sender name")
    if not re.fullmatch(r"AC[0-9a-f]{32}", endpoint.user):
        raise InputError("the sms URL must begin with sms://ACCOUNT_SID:AUTH_TOKEN@")
    login = base64.b64encode(f"{endpoint.user}:{endpoint.password}".encode()).decode()
    headers = {"authorization": f"Basic {login}", "content-type": "application/x-www-form-urlencoded"}
    address = f"{endpoint.base}/2010-04-01/Accounts/{endpoint.user}/Messages.json"

    def build(message: Message, raw: bytes) -> Request:
        if not message.phone or not is_e164(message.phone):
            raise Refused("not an address for text messages: no number like +4930123456")
        form = {"To": message.phone, "Body": message.text.strip()}
        form["MessagingServiceSid" if sender.startswith("MG") else "From"] = sender
        if callback:
            form["StatusCallback"] = f"{callback}?{urlencode({'m': str(message.message_id)})}"
        return Request("POST", address, headers, urlencode(form).encode())

    with sending(endpoint, build, _judge) as send:
        yield send


def events(url: str, since: datetime) -> Iterator[dict[str, Any]]:
    """Its events come through the landing of web hooks."""
    return iter(())


def _judge(answer: Answer, fit: Fit) -> Outcome:
    data = answer.data
    if answer.status in (200, 201):
        if found := data.get("sid"):
            return Outcome("accepted", reply=str(answer.status), provider_id=str(found))
        return Outcome("ambiguous", reply=f"{answer.status} without a message id")
    code = data.get("code")
    text = fit(said(answer, code, data.get("message")))
    return by_code(_CODES, code, answer, text)
