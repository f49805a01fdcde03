"""Signed links and coupon codes: nobody can make or change one without the key, and none of them says who it is for.

A token is `1.<key id>.<part>~<part>.<signature>`: version, which key, what it is about, HMAC-SHA256 cut to 144 bit.
The purpose is signed but not written, so that a score link never unsubscribes anyone. Tokens do not expire: an
unsubscribe link must work as long as somebody keeps the mail; whoever needs an expiry signs a day as one of the parts.

Rotation: put the present key into POSTLUDE_OLD_SECRETS (comma separated, verify only) and set a new POSTLUDE_SECRET.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os
import re
import secrets
from binascii import b2a_base64
from collections.abc import Mapping
from contextlib import suppress
from datetime import date, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import Any
from uuid import UUID

from postlude.errors import InputError, PostludeError
from postlude.settings import Settings, settings

_STARS = ("1", "2", "3", "4", "5")
# what a mail can ask with one click, and the answers: stars, or 0 to 10 for "would you recommend us?"
SCORES = {"item": _STARS, "delivery": _STARS, "shop": tuple(map(str, range(11)))}
# without vowels no word can appear, without 0 1 I L O U Y nothing is misread; ten of 27 characters hold 47 bit
CODE_ALPHABET = "23456789BCDFGHJKMNPQRSTVWXZ"
CODE_LENGTH = 10

_VERSION = "1"
_PARTS = re.compile(r"[A-Za-z0-9_-]{1,64}(?:~[A-Za-z0-9_-]{1,64})*")
_SIGNATURE_BYTES = 18
_MIN_SECRET = 32


class BadToken(PostludeError):
    """The token was not made by us, or not for this purpose. Says no more on purpose."""


def sign(purpose: str, *parts: str) -> str:
    """A token about `parts` (ids, scores: letters, digits, - and _; an address is refused) that only `purpose` accepts.

    The same input and key always give the same token, so a message renders to the same bytes again.
    """
    body = "~".join(parts)
    if not _PARTS.fullmatch(body) or body.count("~") != len(parts) - 1:
        raise ValueError("a token carries ids only: 1-64 letters, digits, - or _ each")
    kid, key = next(iter(_keys().items()))
    return f"{_VERSION}.{kid}.{body}.{_signature(key, purpose, kid, body)}"


def verify(purpose: str, token: str) -> tuple[str, ...]:
    """The parts that were signed for `purpose`. Raises BadToken for everything else, in the same time."""
    fields = token.split(".") if len(token) <= 512 and token.isascii() else []
    version, kid, body, signature = fields if len(fields) == 4 else ("", "", "", "")
    keys = _keys()
    key = keys.get(kid)
    expected = _signature(key or next(iter(keys.values())), purpose, kid, body)
    if not (hmac.compare_digest(expected, signature) and key is not None and version == _VERSION):
        raise BadToken("this link is not one of ours")
    return tuple(body.split("~"))


def check_secret() -> None:
    """Raises InputError when the keys in use are too short or cannot be read; asked before anything is claimed."""
    _keys()


def coupon_code(pool: str, message_id: UUID | str, attempt: int = 0) -> str:
    """The coupon code of a message: 10 characters that cannot be guessed or misread, always the same for the message.

    pool keeps the codes of two campaigns apart. Two messages may share a code once in about 10 million codes issued
    (a chance of a quarter): the unique key of `messages.coupon_code` shows it, then ask again with attempt = 1, 2, ...
    """
    key = _subkey(_current(), "coupon")
    digest = hmac.digest(key, "\x1f".join((pool, str(message_id), str(attempt))).encode(), "sha256")
    number = int.from_bytes(digest[:24], "big")
    code = ""
    for _ in range(CODE_LENGTH):
        number, digit = divmod(number, len(CODE_ALPHABET))
        code += CODE_ALPHABET[digit]
    return code


# ---------------------------------------------------------------- the links of a message


def unsubscribe_link(message_id: UUID | str) -> str:
    """Address of the unsubscribe page, and of the one-click POST of RFC 8058 (List-Unsubscribe header)."""
    return _link("u", sign("unsubscribe", str(message_id)))


def preferences_link(message_id: UUID | str, day: date) -> str:
    """Address of the page on which a person chooses what to get; `day`: the mail's, for the page works for 90 days from it."""
    return _link("p", sign("preferences", str(message_id), day.isoformat()))


def score_links(message_id: UUID | str, about: str = "item") -> dict[str, str]:
    """Addresses that answer a question of a message with one click: {"1": ..., "5": ...}; `about` is one of SCORES.

    Raises KeyError for another question.
    """
    question = () if about == "item" else (about,)
    return {score: _link("s", sign("score", str(message_id), score, *question)) for score in SCORES[about]}


def bounce_address(message_id: UUID, domain: str) -> str:
    """Envelope sender of a message: bounces come back to it, and only we can make it (VERP).

    Lower-case letters and digits only, 49 before the @: some systems change case or cut what is longer than 64.
    """
    key = base64.b32encode(message_id.bytes).decode().rstrip("=").lower()
    return f"b+{key}.{_bounce_mac(_current(), message_id)}@{domain}"


def bounced_message(address: str) -> UUID | None:
    """The message whose bounce address this is; None for any other address, also for a forged one."""
    hit = re.fullmatch(r"b\+([a-z2-7]{26})\.([a-z2-7]{20})@[^@\s]+", address.strip().lower())
    if not hit:
        return None
    message_id = UUID(bytes=base64.b32decode(hit[1].upper() + "======"))
    good = [hmac.compare_digest(_bounce_mac(key, message_id), hit[2]) for key in _keys().values()]
    return message_id if any(good) else None


# ---------------------------------------------------------------- signed requests


def webhook_signature(secret: str, stamp: int, body: bytes) -> str:
    """The header Postlude-Signature of a request: `t=<unix time>,v1=<hex>`, HMAC-SHA256 over "<t>." and the raw body."""
    digest = hmac.digest(secret.encode(), str(stamp).encode() + b"." + body, "sha256").hex()
    return f"t={stamp},v1={digest}"


def webhook_verified(secret: str, header: str, body: bytes, now: datetime, tolerance: timedelta) -> bool:
    """Was this body signed with the secret, not longer ago than `tolerance`? Several v1= are allowed, for rotation."""
    parts = [part.strip().partition("=") for part in header.split(",")]
    stamps = [value for key, _, value in parts if key == "t"]
    if len(stamps) != 1 or not re.fullmatch(r"[0-9]{1,12}", stamps[0]):
        return False
    good = [
        hmac.compare_digest(webhook_signature(secret, int(stamps[0]), body), f"t={stamps[0]},v1={value}")
        for key, _, value in parts
        if key == "v1" and value.isascii()
    ]
    return any(good) and abs(now.timestamp() - int(stamps[0])) <= tolerance.total_seconds()


def banner_token(person: UUID, last_day: date) -> str:
    """Opens the banners of one customer (an opaque key) until the end of `last_day`, UTC."""
    return sign("banner", person.hex, f"{last_day:%Y%m%d}")


def banner_person(token: str, today: date) -> UUID:
    """Whose banners a token opens. Raises BadToken, also for one that has run out."""
    person, last_day = (*verify("banner", token), "")[:2]
    if not re.fullmatch(r"[0-9a-f]{32}", person) or last_day < f"{today:%Y%m%d}":
        raise BadToken("this link is not one of ours, or has run out")
    return UUID(person)


CALENDAR_FOR = timedelta(days=400)


def calendar_link(name: str, day: date) -> str:
    """Where a calendar app reads the campaign calendar; name: whose subscription it is; it works for 400 days from `day`."""
    return f"{settings().web_url.rstrip('/')}/calendar/{sign('ics', name, f'{day:%Y%m%d}')}.ics"


def calendar_reader(token: str, today: date) -> str:
    """Whose subscription a token is. Raises BadToken, also for one that has run out."""
    name, day = (*verify("ics", token), "")[:2]
    if not re.fullmatch(r"[0-9]{8}", day) or today - datetime.strptime(day, "%Y%m%d").date() > CALENDAR_FOR:  # noqa: DTZ007 - a day
        raise BadToken("this link is not one of ours, or has run out")
    return name


def _bounce_mac(key: bytes, message_id: UUID) -> str:
    digest = hmac.digest(_subkey(key, "bounce"), message_id.bytes, "sha256")
    return base64.b32encode(digest[:15])[:20].decode().lower()


def _link(page: str, token: str) -> str:
    return f"{settings().web_url.rstrip('/')}/{page}/{token}"


# ---------------------------------------------------------------- keys


def _signature(key: bytes, purpose: str, kid: str, body: str) -> str:
    inner, outer = _keyed(key, purpose)
    within = inner.copy()
    within.update("\x1f".join((_VERSION, kid, purpose, body)).encode())
    whole = outer.copy()
    whole.update(within.digest())
    return b2a_base64(whole.digest()[:_SIGNATURE_BYTES], newline=False).translate(_URL_SAFE).decode()


_URL_SAFE = bytes.maketrans(b"+/", b"-_")


@lru_cache(maxsize=256)
def _keyed(key: bytes, purpose: str) -> tuple[Any, Any]:
    """HMAC-SHA256 (RFC 2104) with the key taken in already, inner and outer: a mail needs several, and most of each is this."""
    block = _subkey(key, purpose).ljust(64, b"\0")
    return hashlib.sha256(bytes(b ^ 0x36 for b in block)), hashlib.sha256(bytes(b ^ 0x5C for b in block))


@lru_cache(maxsize=256)
def _subkey(key: bytes, purpose: str) -> bytes:
    """A key for one purpose: what is signed for one page means nothing on another."""
    return hmac.digest(key, f"postlude/{purpose}".encode(), "sha256")


def _current() -> bytes:
    return next(iter(_keys().values()))


_known: dict[int, tuple[Settings, Mapping[str, bytes]]] = {}  # by the settings asked about: they do not change


def _keys() -> Mapping[str, bytes]:
    config = settings()
    known = _known.get(id(config))
    if known is None:
        _known.clear()
        known = _known[id(config)] = config, _keys_of(config.secret, config.old_secrets, config.home)
    return known[1]


@lru_cache(maxsize=8)
def _keys_of(secret: str, old: str, home: Path) -> Mapping[str, bytes]:
    """Key by key id, the present one first; the others verify only."""
    found: dict[str, bytes] = {}
    for name, text in [("POSTLUDE_SECRET", secret or _kept(home))] + [
        ("POSTLUDE_OLD_SECRETS", word.strip()) for word in old.split(",") if word.strip()
    ]:
        if len(text) < _MIN_SECRET:
            hint = "make one with: python -c 'import secrets; print(secrets.token_urlsafe(32))'"
            raise InputError(f"{name} is shorter than {_MIN_SECRET} characters; {hint}")
        key = text.encode()
        found.setdefault(_subkey(key, "key id")[:3].hex(), key)
    return found


def _kept(home: Path) -> str:
    """The key in `home`/secret, made at the first use. Of several processes making it at once one wins, all read it."""
    path = home / "secret"
    try:
        return path.read_text().strip()
    except FileNotFoundError:
        home.mkdir(parents=True, exist_ok=True)
    draft = home / f".secret-{os.getpid()}-{secrets.token_hex(4)}"
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "w") as file:
            file.write(secrets.token_urlsafe(48) + "\n")
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(draft, path)  # all or nothing, and only when there is none yet
    finally:
        draft.unlink()
    return path.read_text().strip()
