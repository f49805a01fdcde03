"""One message and what became of it: pure values, and the strict writer that turns a message into bytes.

The same message always gives the same bytes, in any process and time zone, so it can be handed over again unchanged.
The standard library's writer is not used: it alters some CJK subjects and costs thirty times as much.
"""

from __future__ import annotations

import re
from binascii import b2a_base64
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from hashlib import sha256
from struct import Struct
from typing import Any, Literal
from uuid import UUID

from postlude.errors import Refused

Kind = Literal["marketing", "transactional"]
OutcomeKind = Literal["accepted", "refused", "deferred", "ambiguous", "released"]
Scope = Literal["relay", "configuration", "policy", "message", "recipient"]

MAX_BYTES = 10_000_000
_MAX_VALUE = 250  # characters of a header value
_LINE = 78
_WORD = 75  # RFC 2047: longest encoded-word


# ---------------------------------------------------------------- identity


def uuid_of(*parts: str) -> UUID:
    """Deterministic id of a business fact: RFC 9562 version 8 over SHA-256. The SQL twin is postlude.uuid_of."""
    digest = bytearray(sha256("\x1f".join(("postlude", "\x1f".join(parts))).encode()).digest()[:16])
    digest[6] = digest[6] & 0x0F | 0x80
    digest[8] = digest[8] & 0x3F | 0x80
    return UUID(bytes=bytes(digest))


def message_id(enrolment_id: UUID | str, step_id: str) -> UUID:
    """The same enrolment and step always give the same id, so planning again inserts nothing new."""
    return uuid_of("message", str(enrolment_id), step_id)


# ---------------------------------------------------------------- values


@dataclass(frozen=True)
class Address:
    """A mailbox, with the name shown beside it. Checked when it is used, by `envelope`."""

    address: str
    name: str = ""


@dataclass(frozen=True, kw_only=True)
class Message:
    """One mail to one person, rendered. Every field is frozen with the message: a second hand-over has the same bytes.

    date: when it was planned or first claimed (aware); stored, never "now" of the attempt.
    list_unsubscribe: http(s) URL that takes the one-click POST of RFC 8058; marketing cannot be written without it.
    list_unsubscribe_mail: address or mailto: URL for the same.
    return_path: envelope sender; None: the sender's address.
    channel: what it goes through. For anything but "email", `recipient` is a stand-in that only the catcher sees.
    phone: number of an SMS, E.164. person: opaque key of the customer, for channels that know no address.
    link: where a banner leads. expires_at: when it stops being true.
    """

    message_id: UUID
    campaign_id: str
    kind: Kind
    sender: Address
    recipient: Address
    subject: str
    text: str
    html: str
    date: datetime
    reply_to: Address | None = None
    list_unsubscribe: str | None = None
    list_unsubscribe_mail: str | None = None
    list_id: str | None = None
    feedback_id: str | None = None
    return_path: str | None = None
    channel: str = "email"
    phone: str | None = None
    person: UUID | None = None
    link: str | None = None
    expires_at: datetime | None = None


def frozen(message: Message) -> dict[str, Any]:
    """The message as JSON can hold it (instants and ids as text)."""
    return {
        name: value.isoformat() if isinstance(value, datetime) else str(value) if isinstance(value, UUID) else value
        for name, value in asdict(message).items()
    }


def thawed(kept: dict[str, Any]) -> Message:
    """The message that `frozen` kept, equal in every field."""
    values = dict(kept)
    for field in fields(Message):
        value, kind = values.get(field.name), str(field.type)
        if value is None:
            continue
        if kind.startswith("Address"):
            values[field.name] = Address(**value)
        elif kind.startswith("UUID"):
            values[field.name] = UUID(value)
        elif kind.startswith("datetime"):
            values[field.name] = datetime.fromisoformat(value)
    return Message(**values)


@dataclass(frozen=True)
class Outcome:
    """What became of one hand-over, and who is to blame when it failed.

    accepted    the channel answered yes: it is theirs now
    refused     no, for good: `scope` says who is to blame (policy, message, recipient)
    deferred    not now; with scope relay or configuration the message is not at fault and no attempt is used up
    ambiguous   handed over, answer lost or unreadable: it may or may not have been accepted
    released    the intent could not be recorded, so nothing was handed over; the message is as before the claim

    reply: sanitised, <= 200 characters. provider_id: the channel's own id. suppress: the recipient's own hard fault.
    retry_after: what the answer suggests to wait at least; None: the usual schedule. tries: give up after so many; None: the usual.
    """

    kind: OutcomeKind
    scope: Scope | None = None
    reply: str = ""
    provider_id: str | None = None
    suppress: bool = False
    retry_after: timedelta | None = None
    tries: int | None = None

    def __post_init__(self) -> None:
        if self.suppress and (self.kind, self.scope) != ("refused", "recipient"):
            raise ValueError("only a refusal that is the recipient's own fault may suppress an address")
        if (self.scope is None) != (self.kind in ("accepted", "ambiguous", "released")):
            raise ValueError(f"an outcome {self.kind} has {'no' if self.scope else 'a'} scope")


# ---------------------------------------------------------------- cleaning

_BREAKS = re.compile("[ \t\r\n\v\f\x1c-\x1f\x85\u2028\u2029]+")
_INVISIBLE = re.compile(  # C0, C1, bidi marks and overrides, BOM
    "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]"
)
_SURROGATE = re.compile("[\ud800-\udfff]")
_NUMBER = re.compile(r"\+?\d[\d ().-]{6,20}\d")
_MAIL = re.compile(r"""(?:"[^"\s]{1,80}"|[^\s<>()\[\],;:"'=]+)@[^\s<>()\[\],;:"']+""")


def clean(value: str, limit: int = _MAX_VALUE) -> str:
    """A header value as it will be read: one line, single spaces, no control or bidi characters, cut at `limit`."""
    if value.isascii() and value.isprintable() and "  " not in value:
        return value.strip(" ")[:limit].rstrip(" ")
    value = _SURROGATE.sub("\ufffd", _INVISIBLE.sub("", _BREAKS.sub(" ", value)))
    return _BREAKS.sub(" ", value).strip(" ")[:limit].rstrip(" ")  # again: two spaces may have met


def sanitise(reply: str, *addresses: str) -> str:
    """A server's reply fit for storing: one line, at most 200 characters, mail addresses masked.

    addresses: those of the transaction; their local parts are masked also where they stand alone.
    """
    for address in addresses:
        local = address.rpartition("@")[0].strip('"')
        # seldom so; a pattern made for one person costs more than the rest of the hand-over
        if local and local.lower() in reply.lower():
            reply = re.sub(re.escape(address), "<address>", reply, flags=re.IGNORECASE)
            if len(local) > 2:
                reply = re.sub(rf"(?<![\w.]){re.escape(local)}(?!\w)", "<address>", reply, flags=re.IGNORECASE)
    if "@" in reply:
        reply = _MAIL.sub("<address>", reply)
    return clean(reply.replace("<<address>>", "<address>"), 200)


# ---------------------------------------------------------------- addresses

_ATEXT = r"A-Za-z0-9!#$%&'*+/=?^_`{|}~\-\u00a1-\U0010ffff"
_LOCAL = re.compile(rf"[{_ATEXT}.]{{1,64}}")
_DOT_ATOM = re.compile(rf"[{_ATEXT}]+(?:\.[{_ATEXT}]+)*")
_DOMAIN = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z][a-z0-9-]{0,61}[a-z0-9]")


def envelope(address: str) -> str:
    """The address as SMTP and headers carry it: domain by IDNA2008, an unusual local part (a..b) quoted, not corrected.

    A non-ASCII local part stays, and needs SMTPUTF8. Raises Refused, without quoting the address, when it is not one.
    """
    local, at, domain = address.rpartition("@")
    if len(local) > 2 and local[0] == local[-1] == '"':
        local = local[1:-1]
    if not at or not _LOCAL.fullmatch(local) or not local.isprintable() or len(local.encode()) > 64:
        raise Refused("not a mail address: the part before the @ is missing or has characters no mailbox has")
    domain = _domain(domain)
    if not _DOT_ATOM.fullmatch(local):
        local = f'"{local}"'
    result = f"{local}@{domain}"
    if len(result.encode()) > 254:
        raise Refused("not a mail address: it is longer than 254 octets")
    return result


@lru_cache(maxsize=10_000)
def _domain(domain: str) -> str:
    if domain.isascii():
        domain = domain.lower()
    else:
        import idna  # IDNA2008 with the UTS 46 mapping; Python's own codec sends straße.example to somebody else

        try:
            domain = idna.encode(domain, uts46=True, transitional=False).decode("ascii")
        except (idna.IDNAError, UnicodeError):
            raise Refused("not a mail address: the domain is not a valid international name") from None
    if len(domain) > 253 or not _DOMAIN.fullmatch(domain):
        raise Refused("not a mail address: the part after the @ is not a domain")
    return domain


envelope_of_sender = lru_cache(maxsize=64)(envelope)  # they are few; recipients are never kept


# ---------------------------------------------------------------- headers

_PAIRS = [a + b for a in "abcdefghijklmnopqrstuvwxyz234567" for b in "abcdefghijklmnopqrstuvwxyz234567"]

_SHIFTS = tuple(range(120, -1, -10))


def key_of(message_id: UUID) -> str:
    """The id in 26 letters and digits: base32 in lower case, without its padding."""
    number = message_id.int << 2
    return "".join([_PAIRS[number >> shift & 1023] for shift in _SHIFTS])


_ATOMS = re.compile(r"[A-Za-z0-9!#$%&'*+/=?^_`{|}~ -]*")
_SAFE = re.compile(r"[^\r\n]+(?:\r\n [^\r\n]+)*")
_URL = re.compile(r"https?://[!-;=?-~]{3,900}")
_MAILTO = re.compile(r"mailto:[!-;=?-~]{3,900}")
_NOT_TOKEN = re.compile(r"[^A-Za-z0-9_.:-]+")


def _words(text: str, room: int) -> list[str]:
    """RFC 2047 encoded-words, cut between characters; the first is at most `room` long, the others 75."""
    data = text.encode()
    words, start, size = [], 0, (room - 12) // 4 * 3
    while start < len(data):
        end = start + size
        while end < len(data) and data[end] & 0xC0 == 0x80:
            end -= 1
        words.append(f"=?utf-8?b?{b2a_base64(data[start:end], newline=False).decode()}?=")
        start, size = end, (_WORD - 12) // 4 * 3
    return words


def _folded(words: list[str], used: int) -> str:
    """Words joined by spaces, with folds so that no line passes 78 characters; `used`: what stands before the first."""
    lines = [words[0]]
    used += len(words[0])
    for word in words[1:]:
        if used + 1 + len(word) > _LINE:
            lines.append(word)
            used = 1 + len(word)
        else:
            lines[-1] += f" {word}"
            used += 1 + len(word)
    return "\r\n ".join(lines)


def _text(name: str, value: str) -> str:
    """An unstructured header value: plain where it can be, encoded-words where it must."""
    value, used = clean(value), len(name) + 2
    if value.isascii() and "=?" not in value and used + len(value) <= _LINE:  # nearly always
        return value
    plain = value.split(" ")
    if value.isascii() and "=?" not in value and all(len(word) <= _LINE - used for word in plain):
        return _folded(plain, used)
    return _folded(_words(value, min(_WORD, _LINE - used)), used)


def _mailbox(name: str, who: Address) -> str:
    address, shown, used = f"<{envelope(who.address)}>", clean(who.name), len(name) + 2
    if not shown:
        return address[1:-1]
    plain = shown.isascii() and "=?" not in shown
    if plain and used + len(shown) + 1 + len(address) <= _LINE and _ATOMS.fullmatch(shown):  # nearly always
        return f"{shown} {address}"
    if plain and _ATOMS.fullmatch(shown) and all(len(word) <= _LINE - used for word in shown.split(" ")):
        return _folded([*shown.split(" "), address], used)
    quoted = '"' + shown.replace("\\", "\\\\").replace('"', '\\"') + '"'
    if plain and len(quoted) <= _LINE - used:
        return _folded([quoted, address], used)
    return _folded([*_words(shown, min(_WORD, _LINE - used)), address], used)


_sender = lru_cache(maxsize=64)(_mailbox)  # few senders, so worth it; recipients are never kept

_DAYS = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


@lru_cache(maxsize=256)
def _date(at: datetime) -> str:
    if at.tzinfo is None:
        raise ValueError("the date of a message must be aware")
    at = at.astimezone(UTC)  # one spelling, whatever zone the caller's session has
    return f"{_DAYS[at.weekday()]}, {at.day:02} {_MONTHS[at.month - 1]} {at:%Y %H:%M:%S} +0000"


def _unsubscribe(message: Message) -> list[tuple[str, str]]:
    if not message.list_unsubscribe or not _URL.fullmatch(message.list_unsubscribe):
        raise Refused("a marketing message needs an http(s) URL for one-click unsubscribing")
    ways = [f"<{message.list_unsubscribe}>"]
    if mail := message.list_unsubscribe_mail:
        mail = mail if mail.startswith("mailto:") else f"mailto:{envelope(mail)}"
        if not _MAILTO.fullmatch(mail):
            raise Refused("list_unsubscribe_mail is not a mail address or mailto: URL")
        ways.append(f"<{mail}>")
    return [("List-Unsubscribe", ",\r\n ".join(ways)), ("List-Unsubscribe-Post", "List-Unsubscribe=One-Click")]


def _headers(message: Message, boundary: str) -> list[tuple[str, str]]:
    sender = envelope_of_sender(message.sender.address)
    subject = _text("Subject", message.subject)
    if not subject:
        raise Refused("the subject is empty")
    found = [
        ("From", _sender("From", message.sender)),
        ("To", _mailbox("To", message.recipient)),
        ("Subject", subject),
        ("Date", _date(message.date)),
        ("Message-ID", f"<{key_of(message.message_id)}@{sender.rpartition('@')[2]}>"),
        ("X-Msg-Key", str(message.message_id)),
        *_common(message.kind, message.campaign_id, message.reply_to, message.feedback_id, message.list_id),
    ]
    if message.kind == "marketing" or message.list_unsubscribe:  # an order mail may promote too
        found += _unsubscribe(message)
    if boundary:
        found.append(("Content-Type", f'multipart/alternative;\r\n boundary="{boundary}"'))
    return found


@lru_cache(maxsize=256)
def _common(
    kind: Kind, campaign: str, reply_to: Address | None, feedback_id: str | None, list_id: str | None
) -> tuple[tuple[str, str], ...]:
    """The headers that all mails of a campaign have in common."""
    found = [("MIME-Version", "1.0"), ("X-Campaign", _token(campaign))]
    if reply_to:
        found.append(("Reply-To", _mailbox("Reply-To", reply_to)))
    if feedback_id:
        found.append(("Feedback-ID", _token(feedback_id)))
    if kind == "marketing":
        found.append(("Precedence", "bulk"))
        if list_id:
            found.append(("List-ID", f"<{_token(list_id)}>"))
    else:
        # failures are still wanted, so not "All"
        found += [("Auto-Submitted", "auto-generated"), ("X-Auto-Response-Suppress", "DR, RN, NRN, OOF, AutoReply")]
    return tuple(found)


# what a provider that writes the mail itself must be told; From, To, Subject and the like have fields of their own there
_OWN = frozenset(
    {"List-Unsubscribe", "List-Unsubscribe-Post", "List-ID", "Precedence", "Feedback-ID", "Auto-Submitted",
     "X-Auto-Response-Suppress", "X-Msg-Key", "X-Campaign", "Message-ID"}
)  # fmt: skip


def own_headers(message: Message) -> dict[str, str]:
    """The headers of `to_bytes` that are ours to give, unfolded, for a provider that takes fields instead of bytes."""
    return {name: value.replace("\r\n ", " ") for name, value in _headers(message, "") if name in _OWN}


def mask_numbers(text: str) -> str:
    """A text without telephone numbers, for storing what a provider said."""
    return _NUMBER.sub("<number>", text)


def _token(value: str) -> str:
    return _NOT_TOKEN.sub("-", clean(value)) or "-"


# ---------------------------------------------------------------- bytes


_LONGEST = 990  # RFC 5321 takes 998 and the line end, and a dot at the beginning is doubled
_DOT = re.compile(rb"\n\.")  # as a pattern it is found at a third of the cost
_CONTROLS = bytes([*range(9), *range(11, 13), *range(14, 32), 127])


def _encoded(text: str, boundary: bytes) -> tuple[bytes, bytes]:
    """Transfer encoding and the text in it, CRLF line ends: 7bit where it can travel as it is, else base64 of UTF-8 in lines of 76."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    plain = text.encode("utf-8", "replace").replace(b"\n", b"\r\n")
    if text.isascii() and not _has_long_line(text):
        data = plain
        # mailboxes of old write >From; and nothing in a body may look like the end of its part
        if len(data.translate(None, _CONTROLS)) == len(data) and boundary not in data and not _has_from(text):
            return b"7bit", data
    code = b2a_base64(plain, newline=False)
    full = len(code) // 76
    if full > 1000:  # as below, one by one
        return b"base64", b"\r\n".join([code[i : i + 76] for i in range(0, len(code), 76)])
    rows: tuple[bytes, ...] = _rows(full).unpack_from(code)
    return b"base64", b"\r\n".join((*rows, code[full * 76 :]) if len(code) % 76 else rows)


@lru_cache(maxsize=1024)
def _rows(count: int) -> Struct:
    """Takes so many lines from the beginning of a base64 text, at a quarter of the cost of slicing them."""
    return Struct("76s" * count)


def _has_long_line(text: str) -> bool:
    start, end = 0, len(text)
    while end - start > _LONGEST:
        start = text.rfind("\n", start, start + _LONGEST + 1) + 1
        if not start:
            return True
    return False


def _has_from(text: str) -> bool:
    """Does a line begin with "From "? Few letters are an F."""
    at = text.find("F")
    while at >= 0:
        if text.startswith("From ", at) and text[at - 1 : at] in ("", "\n"):
            return True
        at = text.find("F", at + 1)
    return False


class Wire(bytes):
    """A mail that `to_bytes` has written, with CRLF everywhere and at its end.

    stuffed: the same with the dots of SMTP (RFC 5321 section 4.5.2); None: no line begins with a dot.
    """

    stuffed: bytes | None = None


_PART = {
    (kind, way): b"\r\nContent-Type: text/%b; charset=utf-8\r\nContent-Transfer-Encoding: %b\r\n\r\n" % (kind, way)
    for kind in (b"plain", b"html")
    for way in (b"7bit", b"base64")
}


def to_bytes(message: Message) -> Wire:
    """The message as RFC 5322 bytes, CRLF everywhere; the same message always gives the same bytes.

    Raises Refused when it must not go out: invalid address, empty subject or text, marketing without unsubscribe.
    """
    if not message.text.strip():
        raise Refused("the text part is empty")
    has_html = bool(message.html) and not message.html.isspace()
    boundary = f"=_{message.message_id.hex}" if has_html else ""
    mark = boundary.encode()
    encoding, text = _encoded(message.text, mark or b"\0")
    headers = _headers(message, boundary)
    if not has_html:
        headers += [("Content-Type", "text/plain; charset=utf-8"), ("Content-Transfer-Encoding", encoding.decode())]
    head = "".join([f"{name}: {value}\r\n" for name, value in headers])
    # whatever the data held: one line end per fold, no header but ours, and nothing empty
    ends = head.count("\r\n")
    if (
        ends - head.count("\r\n ") != len(headers)
        or not ends == head.count("\r") == head.count("\n")
        or ": \r\n" in head
        or "\r\n \r\n" in head
    ):
        name = next((name for name, value in headers if not _SAFE.fullmatch(value)), "")
        raise Refused(f"the header {name} cannot be written")
    if not has_html:
        raw = Wire(b"".join((head.encode(), b"\r\n", text, b"\r\n")))
        bodies: tuple[bytes, ...] = (text,)
    else:
        line = b"\r\n--" + mark
        kind, html = _encoded(message.html, mark)
        plain, rich = _PART[b"plain", encoding], _PART[b"html", kind]
        raw = Wire(b"".join((head.encode(), line, plain, text, line, rich, html, line, b"--\r\n")))
        bodies = tuple(data for way, data in ((encoding, text), (kind, html)) if way == b"7bit")  # base64 has no dots
    if any([data[:1] == b"." or _DOT.search(data) for data in bodies]):
        raw.stuffed = raw.replace(b"\r\n.", b"\r\n..")
    if len(raw) > MAX_BYTES:
        raise Refused(f"the message has {len(raw):,} bytes; at most {MAX_BYTES:,} are sent")
    return raw
