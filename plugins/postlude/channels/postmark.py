"""Postmark, the e-mail API.

URL: postmark://:SERVER_TOKEN@?stream=broadcast   (default stream: outbound)

It takes fields, not bytes. It has no idempotency key. Our message id goes along as the metadata `msg_key`, which its web
hooks bring back; our Message-ID is kept (X-PM-KeepID).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from postlude.channels import Send
from postlude.channels._http import Answer, Endpoint, Fit, Request, by_code, said, sending
from postlude.channels._lists import Page, Pages, asking
from postlude.message import Address, Message, Outcome, clean, envelope, own_headers

idempotent = False

# 4xx and so on: the account, the token or the sender is at fault, whoever the mail is for. 406: bounced, complained or was
# suppressed there before; which of them is not said, so no suppression of ours
_CODES = dict.fromkeys((10, 400, 401, 402, 403, 405, 409, 412, 413, 1101, 1221, 1235), "ours") | {
    406: "recipient",
    100: "busy",
}


@contextmanager
def connect(url: str) -> Iterator[Send]:
    endpoint = _parse(url)
    headers = {"x-postmark-server-token": endpoint.password, "content-type": "application/json"}
    stream = endpoint.options.get("stream", "outbound")

    def build(message: Message, raw: bytes) -> Request:
        return Request("POST", f"{endpoint.base}/email", headers, json.dumps(_mail(message, stream)).encode())

    with sending(endpoint, build, _judge) as send:
        yield send


def events(url: str, since: datetime) -> Iterator[dict[str, Any]]:
    """Its events come through the landing of web hooks, and through `lists`."""
    return iter(())


def lists(url: str) -> dict[str, Pages]:
    """The bounces API (complaints and unsubscribes are types of it): newest first, so only the last page moves on.

    Postmark's clock is New York's. It shows 10,000 entries of a question; what is older is asked for anew.
    """
    endpoint = _parse(url)

    def pages(since: datetime) -> Iterator[Page]:
        query = {"count": str(_COUNT), "fromdate": since.astimezone(_CLOCK).strftime("%Y-%m-%dT%H:%M:%S")}
        newest, offset = since, 0
        with asking(endpoint, "postmark", {"x-postmark-server-token": endpoint.password}) as ask:
            while items := ask(f"{endpoint.base}/bounces?{urlencode(query | {'offset': str(offset)})}")["Bounces"]:
                newest = max(newest, *(datetime.fromisoformat(item["BouncedAt"]) for item in items))
                yield Page([_report(item) for item in items], None)
                offset += len(items)
                if offset + _COUNT > _MOST:
                    query["todate"], offset = items[-1]["BouncedAt"][:19], 0
                    if items[0]["BouncedAt"][:19] == query["todate"]:
                        break  # a whole page of one second: nothing more to be had of it
                if len(items) < _COUNT:
                    break
        yield Page([], newest)

    return {"bounces": pages}


_CLOCK, _COUNT, _MOST = ZoneInfo("America/New_York"), 500, 10_000


def _report(item: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """As the web hook would tell it, by the key that it would have."""
    match item.get("Type"):
        case "SpamComplaint":
            raw = item | {"RecordType": "SpamComplaint"}
        case "Unsubscribe":
            raw = item | {
                "RecordType": "SubscriptionChange", "ChangedAt": item["BouncedAt"], "SuppressSending": True,
                "SuppressionReason": "ManualSuppression",
            }  # fmt: skip
        case _:
            raw = item | {"RecordType": "Bounce"}
    return f"postmark:{raw['RecordType']}:{item['MessageID']}:{item['ID']}", raw


def _parse(url: str) -> Endpoint:
    return Endpoint.parse(url, "postmark", "api.postmarkapp.com", ("stream",), needs="SERVER_TOKEN")


def _mail(message: Message, stream: str) -> dict[str, Any]:
    headers = own_headers(message) | {"X-PM-KeepID": "true"}
    mail: dict[str, Any] = {
        "From": _who(message.sender),
        "To": _who(message.recipient),
        "Subject": clean(message.subject),
        "TextBody": message.text,
        "Headers": [{"Name": name, "Value": value} for name, value in headers.items()],
        "Metadata": {"msg_key": str(message.message_id)},
        "Tag": message.campaign_id,
        "MessageStream": stream,
        "TrackOpens": False,
        "TrackLinks": "None",
    }
    if message.html.strip():
        mail["HtmlBody"] = message.html
    if message.reply_to:
        mail["ReplyTo"] = _who(message.reply_to)
    return mail


def _who(address: Address) -> str:
    name = clean(address.name).replace("\\", "").replace('"', "")
    return f'"{name}" <{envelope(address.address)}>' if name else envelope(address.address)


def _judge(answer: Answer, fit: Fit) -> Outcome:
    data = answer.data
    code = data.get("ErrorCode")
    if answer.status == 200:
        if code == 0 and data.get("MessageID"):
            return Outcome("accepted", reply="200", provider_id=str(data["MessageID"]))
        return Outcome("ambiguous", reply="200 without a message id")
    told = str(data.get("Message") or "")
    text = fit(said(answer, code, told))
    if answer.status == 500:
        # "in most cases the message is lost", says Postmark: so in some it is not
        return Outcome("ambiguous", reply=text)
    if code == 300 and "'to'" in told.lower():
        return Outcome("refused", "recipient", text)
    return by_code(_CODES, code, answer, text)
