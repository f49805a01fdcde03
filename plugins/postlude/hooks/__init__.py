"""Who said it: signatures of providers' web hooks, checked over the raw bytes before anything is read from them.

`verify(provider, request, config, now)` gives the reports of one request, each with the key it is stored under once. Refused
is raised for everything that is not proven to come from the provider; nothing of the body has been parsed by then, except by
SNS, whose signature stands inside the JSON.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_der_public_key

from postlude.errors import PostludeError
from postlude.hooks import sns
from postlude.tokens import webhook_verified

PROVIDERS = ("ses", "sendgrid", "mailgun", "postmark", "sms", "webhook")
MAX_BATCH = {"sendgrid": 1024 * 1024, "ses": 1024 * 1024}  # the others send one small report at a time
TOLERANCE = timedelta(minutes=10)


class NotProven(PostludeError):
    """The request does not prove that it comes from the provider. Says no more on purpose."""


class NotReadable(PostludeError):
    """It comes from the provider and is not what the provider documents."""


@dataclass(frozen=True)
class Request:
    """A request as it came. url: as the provider was told it, with its query; headers in lower case."""

    url: str
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


@dataclass(frozen=True)
class Report:
    """One thing a provider says: stored once per `key`, raw. token: good for one body only (Mailgun)."""

    key: str
    raw: dict[str, Any] = field(repr=False)
    token: str | None = None


Fetch = Callable[[str], bytes]


def verify(provider: str, request: Request, secret: str, now: datetime, fetch: Fetch) -> list[Report]:
    """The reports of a request that proves where it comes from. secret: as the settings tell for this provider.

    fetch: gets an https address of Amazon's (a certificate, or the confirmation of a subscription of ours).
    Raises NotProven, NotReadable.
    """
    check = {
        "ses": _ses, "sendgrid": _sendgrid, "mailgun": _mailgun, "postmark": _postmark, "sms": _twilio, "webhook": _own,
    }[provider]  # fmt: skip
    return check(request, secret, now, fetch)


def _ses(request: Request, topics: str, now: datetime, fetch: Fetch) -> list[Report]:
    try:
        envelope = sns.read(request.body)
        sns.check(envelope, [topic.strip() for topic in topics.split(",") if topic.strip()], now, fetch)
    except sns.Refused:
        raise NotProven("not signed by SNS for a topic of ours") from None
    if envelope["Type"] == "SubscriptionConfirmation":
        sns.confirm(envelope, fetch)
        return []
    if envelope["Type"] != "Notification":
        return []
    raw = _object(envelope["Message"].encode())
    return [Report(f"ses:{envelope['MessageId']}", raw)]


def _sendgrid(request: Request, key: str, now: datetime, fetch: Fetch) -> list[Report]:
    stamp = request.headers.get("x-twilio-email-event-webhook-timestamp", "")
    signature = request.headers.get("x-twilio-email-event-webhook-signature", "")
    try:
        public = load_der_public_key(base64.b64decode(key))
        assert isinstance(public, ec.EllipticCurvePublicKey)
        public.verify(
            base64.b64decode(signature, validate=True), stamp.encode() + request.body, ec.ECDSA(hashes.SHA256())
        )
    except (ValueError, AssertionError, InvalidSignature, UnsupportedAlgorithm):
        raise NotProven("not signed by SendGrid") from None
    _fresh(stamp, now)
    return [
        Report(f"sendgrid:{event.get('sg_event_id') or _digest(event)}", event)
        for event in _list(request.body)
        if isinstance(event, dict)
    ]


def _mailgun(request: Request, key: str, now: datetime, fetch: Fetch) -> list[Report]:
    """Mailgun signs a time and a token and not the body: each token is therefore good for one body, which the database keeps."""
    raw = _object(request.body, NotProven)
    told = raw.get("signature")
    told = told if isinstance(told, dict) else {}
    stamp, token, given = (str(told.get(name, "")) for name in ("timestamp", "token", "signature"))
    expected = hmac.new(key.encode(), (stamp + token).encode(), hashlib.sha256).hexdigest()
    if not token or not hmac.compare_digest(expected.encode(), given.encode()):
        raise NotProven("not signed by Mailgun")
    _fresh(stamp, now)
    event = raw.get("event-data")
    if not isinstance(event, dict):
        raise NotReadable("no event-data")
    return [Report(f"mailgun:{event.get('id') or token}", event, token)]


def _postmark(request: Request, login: str, now: datetime, fetch: Fetch) -> list[Report]:
    expected = "Basic " + base64.b64encode(login.encode()).decode()
    if not hmac.compare_digest(expected.encode(), request.headers.get("authorization", "").encode()):
        raise NotProven("the wrong user or password")
    raw = _object(request.body)
    at = next((raw[key] for key in ("DeliveredAt", "BouncedAt", "ReceivedAt", "ChangedAt") if raw.get(key)), "")
    # a bounce has a number, by which its list knows it too; its time is spelt differently there
    return [Report(f"postmark:{raw.get('RecordType')}:{raw.get('MessageID')}:{raw.get('ID') or at}", raw)]


def _twilio(request: Request, token: str, now: datetime, fetch: Fetch) -> list[Report]:
    """HMAC-SHA1 over the address and the form's fields in the order of their names, as Twilio defines it."""
    try:
        fields = parse_qsl(request.body.decode(), keep_blank_values=True, strict_parsing=bool(request.body))
    except ValueError:
        raise NotProven("no form") from None
    told = request.url + "".join(name + value for name, value in sorted(set(fields)))
    expected = base64.b64encode(hmac.new(token.encode(), told.encode(), hashlib.sha1).digest())
    if not hmac.compare_digest(expected, request.headers.get("x-twilio-signature", "").encode()):
        raise NotProven("not signed by Twilio")
    raw: dict[str, Any] = dict(fields)
    if message := dict(parse_qsl(urlsplit(request.url).query)).get("m"):
        raw["m"] = message
    status = raw.get("MessageStatus") or raw.get("SmsStatus") or "received"
    return [Report(f"sms:{raw.get('MessageSid') or raw.get('SmsSid')}:{status}", raw)]


def _own(request: Request, secret: str, now: datetime, fetch: Fetch) -> list[Report]:
    if not webhook_verified(secret, request.headers.get("postlude-signature", ""), request.body, now, TOLERANCE):
        raise NotProven("not signed with our secret")
    raw = _object(request.body)
    return [Report(f"webhook:{raw.get('id') or _digest(raw)}", raw)]


# ---------------------------------------------------------------- parts


def _fresh(stamp: str, now: datetime) -> None:
    if not (stamp.isascii() and stamp.isdigit() and len(stamp) < 13):
        raise NotProven("no time")
    if abs(now.timestamp() - int(stamp)) > TOLERANCE.total_seconds():
        raise NotProven("signed too long ago")


def _object(body: bytes, otherwise: type[PostludeError] = NotReadable) -> dict[str, Any]:
    found = _json(body, otherwise)
    if not isinstance(found, dict):
        raise otherwise("no JSON object")
    return found


def _list(body: bytes) -> list[Any]:
    found = _json(body, NotReadable)
    if not isinstance(found, list):
        raise NotReadable("no JSON list")
    return found


def _json(body: bytes, otherwise: type[PostludeError]) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise otherwise("no JSON") from None


def _digest(raw: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(raw, sort_keys=True).encode()).hexdigest()[:32]
