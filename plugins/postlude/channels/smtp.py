"""Hands messages to an SMTP relay, knowing at every moment whether the message can have been accepted.

URL: smtp://user:password@host:587?starttls=required  or  smtps://host. Query keys:

    starttls   auto (default: required unless the host is this machine), required, never
    ca         file of certificates to trust instead of the system's
    helo       the name we give; default: our address
    events     http(s) URL that reports what happened to messages (the mail catcher's /api/events)
    session    messages per connection, default 100
    timeout    seconds, for every phase at once; or timeout_connect, _banner, _command, _data, _block, _dot, _quit
"""

from __future__ import annotations

import contextlib
import re
import ssl
from base64 import b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import lru_cache
from ipaddress import ip_address
from time import monotonic
from typing import Any, cast
from urllib.parse import parse_qsl, unquote, urlsplit
from uuid import UUID

from postlude.channels import INTEND, Send
from postlude.channels._smtp_blame import closes_session, judge, lost
from postlude.channels._smtp_client import Connection, Lost, Reply, Steps, ready, run
from postlude.errors import InputError, Refused, Unavailable
from postlude.message import Message, Outcome, Scope, Wire, envelope, envelope_of_sender, sanitise

idempotent = False  # a relay takes the same message as often as it is given

EVENT_KINDS = frozenset(
    {"delivered", "deferred", "bounced", "complained", "opened", "clicked", "replied", "rated", "unsubscribed"}
)
_MAX_AGE = 60.0  # seconds a connection is used
# seconds, RFC 5321 section 4.5.3.2; the dot's is long because giving up there makes copies
_TIMEOUTS = {
    "connect": 30.0,
    "banner": 300.0,
    "command": 300.0,
    "data": 120.0,
    "block": 180.0,
    "dot": 600.0,
    "quit": 2.0,
}
_PROVIDER_ID = re.compile(
    r"\bqueued as <?([\w.@+-]{4,100})|\bid=<?([\w.@+-]{4,100})|^ok:? ([\w.@+-]{10,100})$", re.IGNORECASE
)


@dataclass(frozen=True)
class Relay:
    """A relay's URL, read."""

    host: str
    port: int
    user: str = ""
    password: str = field(default="", repr=False)
    implicit_tls: bool = False
    starttls: bool = True
    ca: str = ""
    helo: str = ""
    events: str = ""
    session: int = 100
    timeouts: dict[str, float] = field(default_factory=lambda: dict(_TIMEOUTS))

    @classmethod
    def parse(cls, url: str) -> Relay:
        """Raises InputError that names the key and never shows the URL, which holds a password."""
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
        except ValueError:
            raise InputError("the SMTP URL cannot be read; write smtp://user:password@host:587") from None
        if parts.scheme not in ("smtp", "smtps") or not host:
            raise InputError("the SMTP URL must look like smtp://user:password@host:587 or smtps://host")
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        timeouts = {name: _number(query, "timeout", at) for name, at in _TIMEOUTS.items()}
        timeouts = {name: _number(query, f"timeout_{name}", at) for name, at in timeouts.items()}
        starttls = query.get("starttls", "auto")
        if starttls not in ("auto", "required", "never"):
            raise InputError(f'SMTP URL: starttls is "{starttls}"; write auto, required or never')
        local, implicit = _is_this_machine(host), parts.scheme == "smtps"
        if parts.username and not local and not implicit and starttls == "never":
            raise InputError("SMTP URL: a password is not sent over the network in clear; remove starttls=never")
        known = {"starttls", "ca", "helo", "events", "session", "timeout", *(f"timeout_{name}" for name in _TIMEOUTS)}
        if unknown := sorted(set(query) - known):
            raise InputError(f"SMTP URL: unknown key {', '.join(unknown)}; known: {', '.join(sorted(known))}")
        helo = query.get("helo", "")
        if helo and not re.fullmatch(r"[A-Za-z0-9.:\[\]-]{1,255}", helo):
            raise InputError("SMTP URL: helo must be a host name")
        return cls(
            host=host,
            port=port or (465 if implicit else 587 if parts.username else 25),
            user=unquote(parts.username or ""),
            password=unquote(parts.password or ""),
            implicit_tls=implicit,
            starttls=not implicit and (starttls == "required" or (starttls == "auto" and not local)),
            ca=query.get("ca", ""),
            helo=helo,
            events=query.get("events", ""),
            session=max(1, int(_number(query, "session", 100))),
            timeouts=timeouts,
        )

    @property
    def tls(self) -> ssl.SSLContext:
        return _tls(self.ca)


@lru_cache(maxsize=8)
def _tls(ca: str) -> ssl.SSLContext:
    """A verifying context; making one costs milliseconds, so it is kept. Raises InputError for an unusable `ca`."""
    try:
        return ssl.create_default_context(cafile=ca or None)
    except (OSError, ssl.SSLError):
        raise InputError(f"SMTP URL: ca={ca} is not a readable file of certificates") from None


def _number(query: dict[str, str], key: str, default: float) -> float:
    try:
        value = float(query.get(key, default))
    except ValueError:
        value = -1.0
    if not 0 < value < 86_400:
        raise InputError(f'SMTP URL: {key} is "{query[key]}"; write a number above 0')
    return value


def _is_this_machine(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


# ---------------------------------------------------------------- the channel


@contextmanager
def connect(url: str) -> Iterator[Send]:
    """`send` over one kept connection, opened by the first message and again after trouble. InputError: the URL."""
    session = sessions(url)()

    def send(message: Message, raw: bytes, intend: Callable[[], None]) -> Outcome:
        steps = session.send(message, raw)
        try:
            wait = next(steps)
            while True:
                if wait is not INTEND:
                    wait = steps.send(ready(wait))
                    continue
                try:
                    intend()
                except BaseException as error:
                    wait = steps.throw(error)
                else:
                    wait = steps.send(True)
        except StopIteration as end:
            return cast(Outcome, end.value)

    try:
        yield send
    finally:
        run(session.close())


def sessions(url: str) -> Callable[[], Session]:
    """Makes connections whose steps somebody else takes, many at once (postlude/loop.py). InputError: the URL."""
    relay = Relay.parse(url)
    if relay.starttls or relay.implicit_tls:
        _ = relay.tls  # a missing `ca` file is reported now
    return lambda: Session(relay)


def events(url: str, since: datetime) -> Iterator[dict[str, Any]]:
    """What happened since then, if the URL says where to ask (`events=`): dicts kind, at, message_id, source, detail.

    Entries that are not understood are left out. Raises Unavailable when the reporter does not answer.
    """
    address = Relay.parse(url).events
    if not address:
        return
    import httpx

    after: str | None = None
    with httpx.Client(timeout=10, trust_env=False) as client:
        while True:
            asked = {"since": since.astimezone(UTC).isoformat()} | ({"after": after} if after else {})
            try:
                page = client.get(address, params=asked).raise_for_status().json()
                found, following = list(page["events"]), page.get("next")
            except (httpx.HTTPError, httpx.InvalidURL, ValueError, KeyError, TypeError, AttributeError) as error:
                raise Unavailable(f"the channel's events cannot be read: {type(error).__name__}") from None
            for entry in found:
                with contextlib.suppress(KeyError, TypeError, ValueError, AttributeError):
                    yield _event(entry)
            if not following or following == after:
                return
            after = str(following)


def _event(entry: dict[str, Any]) -> dict[str, Any]:
    at = datetime.fromisoformat(entry["at"])
    if entry["kind"] not in EVENT_KINDS or at.tzinfo is None:
        raise ValueError
    return {
        "kind": str(entry["kind"]),
        "at": at.astimezone(UTC),
        "message_id": UUID(entry["message_id"]),
        "source": str(entry.get("source") or "smtp"),
        "detail": dict(entry.get("detail") or {}),
    }


# ---------------------------------------------------------------- one session


class _Failed(Exception):
    """The transaction ended early with this outcome; `link_usable`: the connection can serve the next message."""

    def __init__(self, outcome: Outcome, phase: str, link_usable: bool = False) -> None:
        self.outcome, self.phase, self.link_usable = outcome, phase, link_usable


# what a message begins with: phase, which time limit, the class of reply that lets it go on
_ENVELOPE = (("mail", "command", 2), ("rcpt", "command", 2), ("data", "data", 3))
# all of it taken, as nearly always
_TAKEN = re.compile(rb"2\d\d [^\r\n]{0,500}\r\n2\d\d [^\r\n]{0,500}\r\n3\d\d [^\r\n]{0,500}\r\n")
# so long a kept connection is taken for open without a look at it: where it was closed, MAIL finds out, and a fresh one decides
_FRESH = 1.0


class Session:
    """The kept connection and what the server offered on it. What may take time are steps (_smtp_client.py)."""

    def __init__(self, relay: Relay) -> None:
        self.relay, self.at = relay, relay.timeouts
        self.link: Connection | None = None
        self.offers: dict[str, str] = {}
        self.sent, self.opened, self.used = 0, 0.0, 0.0

    def send(self, message: Message, raw: bytes) -> Steps[Outcome]:
        """The steps of one hand-over. INTEND among them: commit the intent, or throw why it is not; the dot follows directly."""
        try:
            recipient = envelope(message.recipient.address)
        except Refused as error:
            return Outcome("refused", "recipient", str(error))
        try:
            sender = envelope_of_sender(message.return_path or message.sender.address)
        except Refused as error:
            return Outcome("deferred", "configuration", f"sender: {error}")
        body = raw.stuffed or raw if type(raw) is Wire else _stuffed(raw)
        for kept in ((yield from self._usable()), False):
            try:
                if not kept:
                    yield from self._open()
                return (yield from self._transact(sender, recipient, body))
            except _Failed as failed:
                if not failed.link_usable:
                    self.drop()
                # the server had closed or was about to close the kept connection: a fresh one decides
                if kept and failed.phase == "mail" and not failed.link_usable:
                    continue
                return failed.outcome
            except BaseException:
                self.drop()
                raise
        raise AssertionError("a fresh connection always gives an outcome")

    # -- the connection

    def _usable(self) -> Steps[bool]:
        if not self.link:
            return False
        now = monotonic()
        if self.sent >= self.relay.session or now - self.opened > _MAX_AGE:
            yield from self.close()
        elif now - self.used > _FRESH and not self.link.quiet():
            self.drop()
        return self.link is not None

    def _open(self) -> Steps[None]:
        relay = self.relay
        self.link = link = Connection(relay.host)
        try:
            yield from link.connect(relay.port, self.at["connect"], relay.tls if relay.implicit_tls else None)
        except Lost as error:
            raise _Failed(lost("connect", str(error)), "connect") from None
        self.sent, self.opened = 0, monotonic()
        yield from self._expect("banner", self.at["banner"])
        yield from self._greet(link)
        if relay.starttls:
            if "STARTTLS" not in self.offers:
                raise _Failed(lost("tls", "the relay offers no STARTTLS; off this machine it is required"), "tls")
            yield from self._say("tls", b"STARTTLS\r\n", self.at["command"])
            try:
                yield from link.start_tls(relay.tls, self.at["command"])
            except Lost as error:
                raise _Failed(lost("tls", str(error)), "tls") from None
            yield from self._greet(link)
        if relay.user:
            yield from self._log_in()

    def _greet(self, link: Connection) -> Steps[None]:
        reply = yield from self._say(
            "ehlo", f"EHLO {self.relay.helo or link.own_name}\r\n".encode(), self.at["command"]
        )
        words = [line.upper().split(None, 1) for line in reply.lines[1:] if line]
        self.offers = {word[0]: word[1] if len(word) > 1 else "" for word in words}

    def _log_in(self) -> Steps[None]:
        ways = self.offers.get("AUTH", "").split()
        user, password = self.relay.user.encode(), self.relay.password.encode()
        limit = self.at["command"]
        if "PLAIN" in ways:
            yield from self._say("auth", b"AUTH PLAIN " + b64encode(b"\0" + user + b"\0" + password) + b"\r\n", limit)
        elif "LOGIN" in ways:
            yield from self._say("auth", b"AUTH LOGIN\r\n", limit, wanted=3)
            yield from self._say("auth", b64encode(user) + b"\r\n", limit, wanted=3)
            yield from self._say("auth", b64encode(password) + b"\r\n", limit)
        else:
            raise _Failed(Outcome("deferred", "configuration", "the relay offers neither AUTH PLAIN nor LOGIN"), "auth")

    # -- one message

    def _transact(self, sender: str, recipient: str, body: bytes) -> Steps[Outcome]:
        link = self.link
        assert link
        self.sent += 1
        secret = (recipient,)
        mail, rcpt = (
            f"MAIL FROM:<{sender}>{self._options(sender, recipient, body)}\r\n".encode(),
            f"RCPT TO:<{recipient}>\r\n".encode(),
        )
        if "PIPELINING" in self.offers:
            yield from self._pipeline(link, b"%b%bDATA\r\n" % (mail, rcpt), secret)
        else:
            for (phase, limit, wanted), line in zip(_ENVELOPE, (mail, rcpt, b"DATA\r\n"), strict=True):
                yield from self._say(phase, line, self.at[limit], wanted, secret)
        try:
            if rest := link.push(body):
                yield from link.write(rest, self.at["block"])
        except Lost as error:
            raise _Failed(lost("body", str(error)), "body") from None
        if not link.quiet():
            yield from self._spoke(link, secret)
        try:
            yield INTEND
        except Exception as error:
            outcome = Outcome("released", reply=f"intent not recorded: {type(error).__name__}")
            raise _Failed(outcome, "intend") from None
        if not link.quiet():
            yield from self._spoke(link, secret)
        try:
            # from the first byte of this on, the message may be theirs
            if rest := link.push(b".\r\n"):
                yield from link.write(rest, self.at["block"])
            reply = yield from link.reply(self.at["dot"])
        except Lost as error:
            raise _Failed(lost("dot", str(error)), "dot") from None
        text = sanitise(reply.text, *secret)
        if reply.kind == 2:  # as `judge` says of the dot
            self.used = monotonic()
            return Outcome("accepted", reply=text, provider_id=_provider_id(reply))
        outcome = judge("dot", reply, text)
        raise _Failed(outcome, "dot", link_usable=outcome.kind != "ambiguous" and not closes_session(reply))

    def _options(self, sender: str, recipient: str, body: bytes) -> str:
        """What MAIL has to say of this message. Raises _Failed where the relay does not take such."""
        plain = sender.isascii() and recipient.isascii() and body.isascii()
        if not plain and ("SMTPUTF8" not in self.offers or "8BITMIME" not in self.offers):
            blamed: Scope = "message" if recipient.isascii() else "recipient"
            raise _Failed(Outcome("refused", blamed, "eai"), "eai", link_usable=True)
        size = self.offers.get("SIZE", "")
        if size.isdigit() and 0 < int(size) < len(body):
            raise _Failed(Outcome("refused", "message", f"larger than the {size} bytes the relay takes"), "size", True)
        return "" if plain else " BODY=8BITMIME SMTPUTF8"

    def _pipeline(self, link: Connection, lines: bytes, secret: tuple[str, ...]) -> Steps[None]:
        """MAIL, RCPT and DATA in one write (RFC 2920). All three replies are read; the first bad one is the outcome."""
        first: tuple[str, Reply] | None = None
        phase, taken = "mail", 0
        try:
            if rest := link.push(lines):
                yield from link.write(rest, self.at["command"])
            if (yield from link.replies(_TAKEN, self.at["command"])):
                return
            for phase, limit, wanted in _ENVELOPE:
                reply = yield from link.reply(self.at[limit])
                taken = reply.kind
                if first is None and taken != wanted:
                    first = (phase, reply)
                    if closes_session(reply) or reply.kind not in (4, 5):
                        break
        except Lost as error:
            if first is None:
                raise _Failed(lost(phase, str(error)), phase) from None
            taken = 0
        if first is None:
            return
        phase, reply = first
        outcome = judge(phase, reply, sanitise(reply.text, *secret))
        # a DATA taken in spite of the refusal would turn our next line into a message
        usable = taken == 5 and not closes_session(reply) and (yield from self._reset(link))
        raise _Failed(outcome, phase, link_usable=usable)

    def _spoke(self, link: Connection, secret: tuple[str, ...]) -> Steps[None]:
        """An answer before the dot, or an end of the connection, means the message was not taken: so no dot is sent."""
        try:
            reply = yield from link.reply(self.at["quit"])
        except Lost as error:
            raise _Failed(lost("body", str(error)), "body") from None
        raise _Failed(judge("body", reply, sanitise(reply.text, *secret)), "body")

    # -- lines

    def _say(
        self, phase: str, line: bytes, limit: float, wanted: int = 2, secret: tuple[str, ...] = ()
    ) -> Steps[Reply]:
        assert self.link
        try:
            yield from self.link.write(line, limit)
        except Lost as error:
            raise _Failed(lost(phase, str(error)), phase) from None
        return (yield from self._expect(phase, limit, wanted, secret))

    def _expect(self, phase: str, limit: float, wanted: int = 2, secret: tuple[str, ...] = ()) -> Steps[Reply]:
        assert self.link
        try:
            reply = yield from self.link.reply(limit)
        except Lost as error:
            raise _Failed(lost(phase, str(error)), phase) from None
        if reply.kind == wanted:
            return reply
        outcome = judge(phase, reply, sanitise(reply.text, *secret))
        keep = phase in ("mail", "rcpt", "data") and reply.kind in (4, 5) and not closes_session(reply)
        raise _Failed(outcome, phase, link_usable=keep and (yield from self._reset(self.link)))

    def _reset(self, link: Connection) -> Steps[bool]:
        """End the transaction that failed; False when that did not work either, which changes no outcome."""
        try:
            yield from link.write(b"RSET\r\n", self.at["quit"])
            return (yield from link.reply(self.at["quit"])).kind == 2
        except Lost:
            return False

    def drop(self) -> None:
        if self.link:
            self.link.close()
        self.link = None

    def close(self) -> Steps[None]:
        """Say goodbye; whatever comes back changes nothing."""
        if self.link:
            with contextlib.suppress(Lost):
                yield from self.link.write(b"QUIT\r\n", self.at["quit"])
                yield from self.link.reply(self.at["quit"])
        self.drop()


_LONE = re.compile(rb"\r(?!\n)|(?<!\r)\n")


def _stuffed(raw: bytes) -> bytes:
    """The body as it goes over the wire: CRLF only, lines that begin with a dot get another, a CRLF at the end."""
    if not raw.count(b"\r") == raw.count(b"\n") == raw.count(b"\r\n"):
        raw = _LONE.sub(b"\r\n", raw)
    if not raw.endswith(b"\r\n"):
        raw += b"\r\n"
    raw = raw.replace(b"\r\n.", b"\r\n..")
    return b"." + raw if raw.startswith(b".") else raw


def _provider_id(reply: Reply) -> str | None:
    """The relay's own id, where its answer has one."""
    text = reply.lines[-1]
    hit = _PROVIDER_ID.search(text.removeprefix(f"{reply.enhanced} ") if reply.enhanced else text)
    return next((found for found in hit.groups() if found), None) if hit else None
