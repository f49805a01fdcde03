"""Mails as files: one .eml each, named by time and chance, never by person; the index beside them can be rebuilt."""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from email.errors import MessageError
from email.header import decode_header, make_header
from email.message import Message as Part
from email.parser import BytesHeaderParser
from hashlib import sha256
from pathlib import Path
from threading import Lock
from typing import Any
from uuid import UUID

_STAMP = "%Y%m%dT%H%M%S%fZ"
_NAME = re.compile(r"(\d{8}T\d{12}Z)-[0-9a-f]{8}")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_headers = BytesHeaderParser()


@dataclass(frozen=True)
class Mail:
    """What the index knows of one stored mail. key: the sender's X-Msg-Key, if it is a UUID."""

    id: str
    at: datetime
    sender: str
    recipients: tuple[str, ...]
    subject: str
    campaign: str
    key: str
    message_id: str
    sha256: str
    size: int

    @property
    def identity(self) -> str:
        """Mails of one identity are copies of one message."""
        return self.key or self.message_id or self.sha256

    @property
    def shown_to(self) -> str:
        return ", ".join(self.recipients)


class Store:
    """A folder of mails, and its index in memory. Safe to use from several threads of one process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = Lock()
        self._mails: list[Mail] = []  # in the order of their ids
        self._by_id: dict[str, Mail] = {}
        self._copies: Counter[str] = Counter()
        for rest in folder.glob(".half-*"):  # from a crash: never answered for
            rest.unlink()
        self._load()
        self._index = (folder / "index.jsonl").open("a", encoding="utf-8")

    def close(self) -> None:
        self._index.close()

    def add(self, raw: bytes, recipients: Sequence[str]) -> Mail:
        """Keep a mail; when this returns it survives a power cut. Raises OSError when it could not be kept."""
        half = self.folder / f".half-{secrets.token_hex(8)}"
        with open(half, "xb", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
            file.write(raw)
            file.flush()
            os.fsync(file.fileno())
        with self._lock:
            at = datetime.now(UTC)
            if self._mails and at <= self._mails[-1].at:  # so whoever asks "since" misses nothing
                at = self._mails[-1].at + timedelta(microseconds=1)
            mail = _describe(f"{at.strftime(_STAMP)}-{secrets.token_hex(4)}", raw, recipients)
            half.rename(self._path(mail.id))
            self._remember(mail)
            with contextlib.suppress(OSError):  # the index can be rebuilt; the mail is what counts
                self._index.write(_line(mail))
                self._index.flush()
        handle = os.open(self.folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
        return mail

    def __len__(self) -> int:
        return len(self._mails)

    def all(self) -> list[Mail]:
        """Every mail, oldest first."""
        with self._lock:
            return list(self._mails)

    def get(self, mail_id: str) -> Mail | None:
        return self._by_id.get(mail_id)

    def raw(self, mail: Mail) -> bytes:
        return self._path(mail.id).read_bytes()

    def copies(self, mail: Mail) -> int:
        """How many times this message arrived."""
        return self._copies[mail.identity]

    def search(self, words: str) -> list[Mail]:
        """Mails with all the words in recipient, subject, campaign, key or Message-ID; newest first."""
        wanted = words.casefold().split()
        found = reversed(self.all())
        return [mail for mail in found if not wanted or all(word in _haystack(mail) for word in wanted)]

    def since(self, at: datetime, after: str, limit: int) -> list[Mail]:
        """The oldest `limit` mails that arrived at or after `at`, and after the one with id `after`."""
        first = EPOCH.strftime(_STAMP) if at < EPOCH else at.astimezone(UTC).strftime(_STAMP)
        with self._lock:
            start = bisect_right(self._mails, max(after, first), key=lambda mail: mail.id)
            return self._mails[start : start + limit]

    # -- inside

    def _path(self, mail_id: str) -> Path:
        return self.folder / f"{mail_id}.eml"

    def _remember(self, mail: Mail) -> None:
        self._mails.append(mail)
        self._by_id[mail.id] = mail
        self._copies[mail.identity] += 1

    def _load(self) -> None:
        """From the index, and from the files the index does not know; then the index is written anew."""
        index = self.folder / "index.jsonl"
        known = {mail.id: mail for mail in _read_index(index)}
        for path in sorted(self.folder.glob("*.eml")):
            if _NAME.fullmatch(path.stem):
                self._remember(known.get(path.stem) or _describe(path.stem, path.read_bytes(), ()))
        fresh = index.with_suffix(".new")
        with open(fresh, "w", encoding="utf-8", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
            file.writelines(_line(mail) for mail in self._mails)
        fresh.replace(index)


def _read_index(path: Path) -> Iterator[Mail]:
    if not path.exists():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            with contextlib.suppress(ValueError, TypeError, KeyError):  # a torn line: the file itself is read instead
                row = json.loads(line)
                yield Mail(**row | {"at": datetime.fromisoformat(row["at"]), "recipients": tuple(row["recipients"])})


def _line(mail: Mail) -> str:
    return json.dumps(asdict(mail), default=str) + "\n"


def _haystack(mail: Mail) -> str:
    return " ".join((*mail.recipients, mail.subject, mail.campaign, mail.key, mail.message_id)).casefold()


def _describe(mail_id: str, raw: bytes, recipients: Sequence[str]) -> Mail:
    """What the index keeps of a mail; whatever its headers hold, it does not fail."""
    found = _headers.parsebytes(raw.partition(b"\r\n\r\n")[0][:100_000] + b"\r\n\r\n")
    key = _decoded(found["X-Msg-Key"])
    try:
        key = str(UUID(key))
    except ValueError:
        key = ""
    at = datetime.strptime(mail_id.partition("-")[0], _STAMP).replace(tzinfo=UTC)
    return Mail(
        id=mail_id,
        at=at,
        sender=_decoded(found["From"]),
        recipients=tuple(_text(one) for one in recipients) or (_decoded(found["To"]),),
        subject=_decoded(found["Subject"]),
        campaign=_decoded(found["X-Campaign"]),
        key=key,
        message_id=_decoded(found["Message-ID"]).strip("<>"),
        sha256=sha256(raw).hexdigest(),
        size=len(raw),
    )


def _decoded(value: object) -> str:
    """A header as people read it; as it stands where it cannot be decoded."""
    if value is None:
        return ""
    plain = str(value).replace("\r", "").replace("\n", "")
    try:
        return _text(str(make_header(decode_header(plain))))
    except (ValueError, LookupError, MessageError):
        return _text(plain)


def _text(value: str) -> str:
    return value.encode("utf-8", "replace").decode().strip()


# ---------------------------------------------------------------- reading one mail


def opened(raw: bytes) -> dict[str, Any]:
    """A mail taken apart for looking at: headers (name, value), text, html; empty where it has none or is broken."""
    found = message_from_bytes(raw, policy=policy.compat32)
    headers = [(name, _decoded(value)) for name, value in found.items()]
    parts = {"text": "", "html": ""}
    for part in found.walk():
        kind = part.get_content_type()
        if kind in ("text/plain", "text/html") and not parts[kind[5:].replace("plain", "text")]:
            parts[kind[5:].replace("plain", "text")] = _content(part)
    return {"headers": headers, **parts}


def _content(part: Part) -> str:
    payload = part.get_payload(decode=True)
    if not isinstance(payload, bytes):
        return ""
    try:
        return _text(payload.decode(part.get_content_charset() or "utf-8", "replace"))
    except (LookupError, ValueError):
        return _text(payload.decode("utf-8", "replace"))
