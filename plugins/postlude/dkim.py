"""Signs mails with DKIM (RFC 6376, rsa-sha256 or ed25519-sha256 of RFC 8463, relaxed/relaxed).

The time in the signature is the message's own, so the same message has the same bytes in every process. What is signed includes
the headers of one-click unsubscribing, as RFC 8058 demands; From, Subject and To are signed once more than they are there, so
that nobody can add a second one.
"""

from __future__ import annotations

import base64
import hashlib
import re
from datetime import datetime
from functools import lru_cache
from pathlib import Path

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ed25519, padding, rsa
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from postlude.errors import InputError

Key = rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey

_SIGNED = (
    "from", "to", "subject", "date", "message-id", "mime-version", "content-type", "reply-to", "list-unsubscribe",
    "list-unsubscribe-post", "list-id", "feedback-id", "auto-submitted",
)  # fmt: skip
_ONCE_ONLY = ("from", "to", "subject", "date", "message-id", "list-unsubscribe", "list-unsubscribe-post")
_BLANK = re.compile(rb"[ \t]+")
_BLANKS = re.compile(r"[ \t]+")
_FOLD = re.compile(r"\r\n(?=[ \t])")


def signed(raw: bytes, domain: str, selector: str, key: Key, at: datetime) -> bytes:
    """The mail with a DKIM-Signature before it. raw: as `message.to_bytes` writes it, CRLF everywhere; at: the message's date."""
    head, _, body = raw.partition(b"\r\n\r\n")
    fields = [(line.partition(":")[0].lower(), line) for line in _FOLD.sub("", head.decode()).split("\r\n")]
    there = [name for name in _SIGNED if any(name == known for known, _ in fields)]
    names = [*there, *(name for name in _ONCE_ONLY if name in there)]
    digest = base64.b64encode(hashlib.sha256(_relaxed_body(body)).digest()).decode()
    algorithm = "rsa-sha256" if isinstance(key, rsa.RSAPrivateKey) else "ed25519-sha256"
    listed = ":\r\n ".join(":".join(names[start : start + 4]) for start in range(0, len(names), 4))
    told = (
        f"v=1; a={algorithm}; c=relaxed/relaxed; d={domain}; s={selector};\r\n t={int(at.timestamp())}; bh={digest};\r\n"
        f" h={listed};\r\n b="
    )
    # a name listed twice stands for a second field that is not there, which counts as nothing
    text = "".join(_relaxed(line) + "\r\n" for name in there for known, line in fields if known == name)
    text += _relaxed("dkim-signature:" + _FOLD.sub("", told))
    signature = base64.b64encode(_sign(key, text.encode())).decode()
    folded = "\r\n ".join(signature[start : start + 72] for start in range(0, len(signature), 72))
    return b"DKIM-Signature: " + told.encode() + folded.encode() + b"\r\n" + raw


def load_key(path: Path) -> Key:
    """The private key in a PEM file, without a password. Raises InputError; an RSA key below 2048 bits is refused."""
    try:
        key = load_pem_private_key(path.read_bytes(), None)
    except (OSError, ValueError, TypeError):
        raise InputError(f"POSTLUDE_DKIM_KEY: {path} is no private key in PEM without a password") from None
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size >= 2048:
        return key
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key
    raise InputError("POSTLUDE_DKIM_KEY: take an RSA key of at least 2048 bits, or Ed25519")


@lru_cache(maxsize=4)
def kept_key(path: Path) -> Key:
    """`load_key`, once per process."""
    return load_key(path)


def _sign(key: Key, text: bytes) -> bytes:
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(text, padding.PKCS1v15(), hashes.SHA256())
    return key.sign(hashlib.sha256(text).digest())


def _relaxed(line: str) -> str:
    name, _, value = line.partition(":")
    return name.strip().lower() + ":" + _BLANKS.sub(" ", value).strip(" \t")


def _relaxed_body(body: bytes) -> bytes:
    """No blanks at line ends, one blank for several, no empty lines at the end, one line end at the very end."""
    lines = [_BLANK.sub(b" ", line).rstrip(b" ") for line in body.split(b"\r\n")]
    while lines and not lines[-1]:
        lines.pop()
    return b"\r\n".join(lines) + b"\r\n" if lines else b""
