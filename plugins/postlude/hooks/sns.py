"""Amazon SNS: the signature inside the JSON, over a text put together from its fields, by a certificate of Amazon's."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa

from postlude.errors import PostludeError

_HOST = re.compile(r"sns\.[a-z0-9-]+\.amazonaws\.com(\.cn)?")
_MAX_AGE = timedelta(hours=1)  # SNS tries again for a while with the time of the first try
_NOTE = ("Message", "MessageId", "Subject", "Timestamp", "TopicArn", "Type")
_ASK = ("Message", "MessageId", "SubscribeURL", "Timestamp", "Token", "TopicArn", "Type")


class Refused(PostludeError):
    """Not from SNS, not for a topic of ours, or too old."""


def read(body: bytes) -> dict[str, str]:
    """The envelope: JSON with text values. Raises Refused."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        raise Refused("no JSON") from None
    if not isinstance(found, dict):
        raise Refused("no object")
    fields = {str(key): value for key, value in found.items() if isinstance(value, str)}
    if not {"Type", "TopicArn", "MessageId", "Timestamp", "Message", "Signature", "SigningCertURL"} <= fields.keys():
        raise Refused("fields are missing")
    return fields


def check(envelope: dict[str, str], topics: list[str], now: datetime, fetch: Callable[[str], bytes]) -> None:
    """Raises Refused unless Amazon signed this for one of `topics`. The topic comes first: a foreign one fetches nothing."""
    if envelope["TopicArn"] not in topics:
        raise Refused("not a topic of ours")
    if not of_amazon(envelope["SigningCertURL"]) or not envelope["SigningCertURL"].endswith(".pem"):
        raise Refused("the certificate lies elsewhere")
    try:
        age = now - datetime.fromisoformat(envelope["Timestamp"])
    except (ValueError, TypeError):
        raise Refused("no time") from None
    if not -timedelta(minutes=10) <= age <= _MAX_AGE:
        raise Refused("too old")
    digest: Any = {"1": hashes.SHA1, "2": hashes.SHA256}.get(envelope.get("SignatureVersion", ""))
    if digest is None:
        raise Refused("unknown version of signature")
    try:
        key = _certificate(fetch, envelope["SigningCertURL"], f"{now:%Y-%m-%d}").public_key()
        assert isinstance(key, rsa.RSAPublicKey)
        signature = base64.b64decode(envelope["Signature"], validate=True)
        key.verify(signature, signed_text(envelope).encode(), padding.PKCS1v15(), digest())
    except (ValueError, AssertionError, InvalidSignature, UnsupportedAlgorithm, OSError):
        raise Refused("not signed by SNS") from None


def confirm(envelope: dict[str, Any], fetch: Callable[[str], bytes]) -> None:
    """Answer a subscription to a topic of ours; only at Amazon's own address, wherever the letter points."""
    if of_amazon(envelope.get("SubscribeURL", "")):
        fetch(envelope["SubscribeURL"])


def of_amazon(url: str) -> bool:
    """https, an SNS host of Amazon's, no port, no user."""
    try:
        parts = urlsplit(url)
        return parts.scheme == "https" and bool(_HOST.fullmatch(parts.netloc))
    except ValueError:
        return False


def signed_text(envelope: dict[str, str]) -> str:
    """What is signed: names and values in the order of the names, each on a line."""
    names = _NOTE if envelope["Type"] == "Notification" else _ASK
    return "".join(f"{name}\n{envelope[name]}\n" for name in names if name in envelope)


@lru_cache(maxsize=32)
def _certificate(fetch: Callable[[str], bytes], url: str, _day: str) -> x509.Certificate:
    return x509.load_pem_x509_certificate(fetch(url))
