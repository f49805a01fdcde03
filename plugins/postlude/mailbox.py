"""What comes back by mail: bounces (RFC 3464), complaints (RFC 5965), automatic and human replies.

`read` says what one raw mail is; `messages` walks a Maildir. Own parser first, because only the report's own fields tell a
status; odd old formats go through flufl.bounce, which knows dozens of them but gives no status, within limits of size and
time of its own. Which message a mail is about comes from a signed envelope address (VERP) and nothing else: whoever forges a
report cannot suppress anybody. Nothing here raises, whatever the bytes.
"""

from __future__ import annotations

import email
import email.header
import email.policy
import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass
from email.message import Message as Mail
from email.utils import getaddresses
from pathlib import Path
from typing import Literal
from uuid import UUID

from postlude import tokens

Kind = Literal["bounce", "complaint", "auto_reply", "reply", "unreadable"]

MAX_BYTES = 1_000_000  # flufl takes seconds for huge mails, and no bounce needs more
# mailbox or domain does not exist; 5.7.x is policy and 5.2.2 a full mailbox: never the recipient's own hard fault
HARD = re.compile(r"5\.1\.(0|1|2|3|6|10)|5\.2\.1")
_STATUS = re.compile(r"\b([245])\.(\d{1,3})\.(\d{1,3})\b")
_ADDRESS = re.compile(r"[^\s<>();,:\"]+@[^\s<>();,:\"]+")
_OUT_OF_OFFICE = re.compile(
    r"^\s*(auto(matic)?[ -]?(reply|response)|out of (the )?office|abwesen|r[ée]ponse automatique|自動(返信|応答)|부재중|자동 ?(응답|회신))",
    re.IGNORECASE,
)
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Failure:
    """One recipient of a bounce. status: enhanced code (RFC 3463) or empty; hard: the mailbox is known not to exist."""

    address: str
    permanent: bool
    status: str = ""

    @property
    def hard(self) -> bool:
        return self.permanent and bool(HARD.fullmatch(self.status))


@dataclass(frozen=True)
class Reading:
    """What one mail is. message_id: the message it answers, when a valid signed address says so."""

    kind: Kind
    message_id: UUID | None = None
    failures: tuple[Failure, ...] = ()


def read(raw: bytes) -> Reading:
    """What this mail is. Never raises; `unreadable` when it cannot be told."""
    try:
        mail = email.message_from_bytes(raw, policy=email.policy.compat32)
        about = _about(mail)
        if _is_complaint(mail):
            return Reading("complaint", about)
        if failures := _report(mail):
            return Reading("bounce", about, failures)
        if failures := _odd(mail, len(raw)):  # before automatic answers: odd bounces call themselves auto-replied too
            return Reading("bounce", about, failures)
        return Reading("auto_reply" if _is_automatic(mail) else "reply", about)
    except Exception as error:  # any bytes may come; one bad mail must not stop the mailbox
        log.warning("a mail of %d bytes cannot be read: %s", len(raw), type(error).__name__)
        return Reading("unreadable")


def messages(maildir: Path) -> Iterator[tuple[Path, bytes]]:
    """Every mail waiting in a Maildir (new, then cur), oldest name first, as path and bytes."""
    for part in ("new", "cur"):
        for path in sorted((maildir / part).glob("*")):
            if path.is_file():
                yield path, path.read_bytes()


# ---------------------------------------------------------------- whose mail came back


def _about(mail: Mail) -> UUID | None:
    for header in ("To", "Delivered-To", "X-Original-To", "Envelope-To"):
        for _, address in getaddresses([_text(value) for value in mail.get_all(header, [])]):
            if found := tokens.bounced_message(address):
                return found
    return None


# ---------------------------------------------------------------- standard reports


def _report(mail: Mail) -> tuple[Failure, ...]:
    """Recipients of a delivery status report, RFC 3464 and 6533; () when it is none, or only reports success."""
    found: dict[str, Failure] = {}
    for part in mail.walk():
        if part.get_content_type() not in ("message/delivery-status", "message/global-delivery-status"):
            continue
        blocks = part.get_payload()
        for block in blocks if isinstance(blocks, list) else []:
            if not isinstance(block, Mail):
                continue
            action = _text(block.get("Action", "")).strip().lower()
            address = _recipient(block.get("Original-Recipient")) or _recipient(block.get("Final-Recipient"))
            if not address or not action.startswith(("fail", "delay")):
                continue
            hit = _STATUS.search(_text(block.get("Status", "")))
            status = ".".join(hit.groups()) if hit else ""
            said = _STATUS.search(_text(block.get("Diagnostic-Code", "")))
            if said and status in ("", f"{said[1]}.0.0"):
                status = ".".join(said.groups())  # the relay's summary is vague; what the other side said is not
            found.setdefault(address.lower(), Failure(address, action.startswith("fail"), status))
    return tuple(found.values())


def _recipient(value: object) -> str:
    """The address in "rfc822; user@example.com"; "" when there is none."""
    hit = _ADDRESS.search(_text(value).partition(";")[2] or _text(value))
    return hit[0].strip("<>.") if hit else ""


def _is_complaint(mail: Mail) -> bool:
    for part in mail.walk():
        if part.get_content_type() == "message/feedback-report":
            blocks = part.get_payload()
            block = blocks[0] if isinstance(blocks, list) and blocks else None
            text = _text(block.get("Feedback-Type", "")) if isinstance(block, Mail) else str(blocks)
            return "not-spam" not in text.lower()
    return False


# ---------------------------------------------------------------- automatic answers, and odd bounces


def _is_automatic(mail: Mail) -> bool:
    """RFC 3834 and what people's programs do instead. Bounces never come here with a report of their own."""
    auto = _text(mail.get("Auto-Submitted", "")).partition(";")[0].strip().lower()
    if auto == "auto-replied" or (auto == "auto-generated" and not _null_sender(mail)):
        return True
    if any(mail.get(name) for name in ("X-Autoreply", "X-Autorespond", "X-Auto-Response-From")):
        return True
    if _text(mail.get("Precedence", "")).strip().lower() in ("auto_reply", "auto-reply"):
        return True
    return bool(_OUT_OF_OFFICE.match(_subject(mail)))


def _null_sender(mail: Mail) -> bool:
    return _text(mail.get("Return-Path", "")).strip() == "<>"


def _odd(mail: Mail, size: int) -> tuple[Failure, ...]:
    """Bounces in the formats of old and proprietary systems. They name no status, so they are never hard."""
    if size > MAX_BYTES:
        return ()
    from flufl.bounce import all_failures

    try:
        temporary, permanent = all_failures(mail)
    except Exception as error:  # it trips over broken headers
        log.info("a mail cannot be read as a bounce: %s", type(error).__name__)
        return ()
    failures = [Failure(_text(address), False) for address in temporary]
    failures += [Failure(_text(address), True) for address in permanent]
    return tuple(sorted(failures, key=lambda failure: (failure.permanent, failure.address)))


def _subject(mail: Mail) -> str:
    try:
        return str(email.header.make_header(email.header.decode_header(_text(mail.get("Subject", "")))))
    except (ValueError, LookupError):
        return _text(mail.get("Subject", ""))


def _text(value: object) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value or "")
