"""The wire of the HTTP channels: one kept connection, and the last byte of a request only after the intent.

A request is written up to its last byte, then `intend()` commits, then the last byte goes. Whatever fails before that byte
was not handed over. After it only a complete answer that the provider documents tells anything; all else is ambiguous.
"""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import lru_cache
from ipaddress import ip_address
from threading import Timer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import httpcore
import httpx

from postlude.channels import Send
from postlude.errors import InputError, Refused
from postlude.message import Message, Outcome, mask_numbers, sanitise

MAX_ANSWER = 64 * 1024
_BLOCK = 64 * 1024
_SOON = timedelta(minutes=1)
_LONGEST = timedelta(hours=24)
# seconds; the answer's is long because giving up there makes copies
_TIMEOUTS = {"connect": 10.0, "write": 30.0, "answer": 60.0}


# ---------------------------------------------------------------- where a provider is


@dataclass(frozen=True)
class Endpoint:
    """A channel's URL, read: scheme://user:password@host/path?options. `base`: where the API is, without a slash at the end."""

    base: str
    host: str
    path: str
    user: str = field(repr=False)
    password: str = field(repr=False)
    options: dict[str, str]
    ca: str = ""
    timeouts: dict[str, float] = field(default_factory=lambda: dict(_TIMEOUTS))

    @classmethod
    def parse(
        cls, url: str, scheme: str, host: str, options: tuple[str, ...] = (), needs: str = "PASSWORD"
    ) -> Endpoint:
        """host: of the public API, when the URL names none. `?api=` is another one: https, or http on this machine.

        Raises InputError that names the key and never shows the URL, which holds a secret.
        """
        told = f"the {scheme} URL"
        try:
            parts = urlsplit(url)
            named, port = parts.hostname or "", parts.port
        except ValueError:
            raise InputError(f"{told} cannot be read; see docs/channels.md") from None
        if parts.scheme != scheme:
            raise InputError(f"{told} must begin with {scheme}:")
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        known = {"api", "ca", "timeout", *(f"timeout_{name}" for name in _TIMEOUTS), *options}
        if unknown := sorted(set(query) - known):
            raise InputError(f"{told}: unknown key {', '.join(unknown)}; known: {', '.join(sorted(known))}")
        user, password = unquote(parts.username or ""), unquote(parts.password or "")
        if not password:
            raise InputError(f"{told} has no {needs}; write {scheme}://user:{needs}@host, see docs/channels.md")
        timeouts = {name: _seconds(told, query, "timeout", at) for name, at in _TIMEOUTS.items()}
        timeouts = {name: _seconds(told, query, f"timeout_{name}", at) for name, at in timeouts.items()}
        base = query.get("api") or f"https://{named or host}{f':{port}' if port else ''}"
        _check_base(told, base)
        return cls(
            base=base.rstrip("/"),
            host=named,
            path=parts.path.strip("/"),
            user=user,
            password=password,
            options={key: query[key] for key in options if key in query},
            ca=query.get("ca", ""),
            timeouts=timeouts,
        )


def _seconds(told: str, query: dict[str, str], key: str, default: float) -> float:
    try:
        value = float(query.get(key, default))
    except ValueError:
        value = -1.0
    if not 0 < value < 86_400:
        raise InputError(f'{told}: {key} is "{query[key]}"; write a number above 0')
    return value


def _check_base(told: str, base: str) -> None:
    try:
        parts = urlsplit(base)
        host = parts.hostname or ""
    except ValueError:
        host = ""
    if not host or parts.scheme not in ("http", "https"):
        raise InputError(f"{told}: api must look like https://host")
    try:
        here = ip_address(host).is_loopback
    except ValueError:
        here = host == "localhost"
    if parts.scheme == "http" and not here:
        raise InputError(f"{told}: secrets and messages are not sent over the network in clear; write https")


# ---------------------------------------------------------------- what goes and what comes


@dataclass(frozen=True)
class Request:
    """What a provider wants for one message. The body is never empty: its last byte is what hands the message over."""

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes = field(repr=False)


@dataclass(frozen=True)
class Answer:
    """A complete answer; `data` is its JSON object, empty when it has none."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """Raises ValueError when it is none."""
        return json.loads(self.body)

    @property
    def data(self) -> dict[str, Any]:
        try:
            found = self.json
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    @property
    def retry_after(self) -> timedelta | None:
        """What the answer asks to wait: seconds or a date, at most a day."""
        given = self.headers.get("retry-after", "").strip()
        if given.isascii() and given.isdigit():
            return min(timedelta(seconds=min(int(given[:8]), 10**7)), _LONGEST)
        try:
            wait = parsedate_to_datetime(given) - datetime.now(UTC)
        except (ValueError, TypeError):
            return None
        return min(max(wait, timedelta()), _LONGEST)


Build = Callable[[Message, bytes], Request]
Fit = Callable[[str], str]  # makes what a provider said fit for storing
Judge = Callable[[Answer, Fit], Outcome]

_OURS = {401, 402, 403, 404, 405, 407, 410}
_NOT_NOW = {408, 409, 425, 500, 503}


def by_status(answer: Answer, text: str) -> Outcome:
    """What a status means where the provider's own code says nothing more. A message is to blame only for a plain 4yz.

    502 and 504 come from a gateway that lost the answer of whoever stands behind it: it may have been yes.
    """
    status = answer.status
    if status == 429:
        return Outcome("deferred", "relay", text, retry_after=answer.retry_after or _SOON)
    if status in _OURS or 300 <= status < 400:
        return Outcome("deferred", "configuration", text, retry_after=_SOON)
    if status in _NOT_NOW:
        return Outcome("deferred", "relay", text, retry_after=answer.retry_after or _SOON)
    if 400 <= status < 500:
        return Outcome("refused", "message", text)
    if status in (501, 505):
        return Outcome("deferred", "configuration", text, retry_after=_SOON)
    return Outcome("ambiguous", reply=text)


def by_code(table: Mapping[Any, str], code: Any, answer: Answer, text: str) -> Outcome:
    """What a provider's own code means: table says ours, busy, recipient or nobody (no such recipient, ever); else the status."""
    match table.get(code):
        case "ours":
            return Outcome("deferred", "configuration", text, retry_after=_SOON)
        case "busy":
            return Outcome("deferred", "relay", text, retry_after=answer.retry_after or _SOON)
        case "recipient":
            return Outcome("refused", "recipient", text)
        case "nobody":
            return Outcome("refused", "recipient", text, suppress=True)
    return by_status(answer, text)


def said(answer: Answer, *words: object) -> str:
    """The status and what the provider said, before it is made fit for storing."""
    return " ".join([str(answer.status), *(" ".join(str(word).split()) for word in words if word)])


# ---------------------------------------------------------------- one session


class _NotRecorded(Exception):
    """The intent failed; the text is the class of its error."""


@dataclass
class _Progress:
    """How far one request came."""

    complete: bool = False  # the last byte was given to the connection
    fresh: bool = False  # the connection was opened for it
    gone: bool = False  # a kept connection had been closed by the other side


@contextmanager
def sending(endpoint: Endpoint, build: Build, judge: Judge, repeat: int = 0) -> Iterator[Send]:
    """`send` over one kept connection. build: Refused blames the message.

    repeat: how often an ambiguous request goes again at once, under the intent it has: only where the receiver keeps
    one copy per key.
    """
    session = _Session(endpoint, build, judge, repeat)
    try:
        yield session.send
    finally:
        session.client.close()


@lru_cache(maxsize=8)
def _tls(ca: str) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=ca or None)
    except (OSError, ssl.SSLError):
        raise InputError(f"ca={ca} is not a readable file of certificates") from None


class _Session:
    def __init__(self, endpoint: Endpoint, build: Build, judge: Judge, repeat: int) -> None:
        self.build, self.judge, self.repeat = build, judge, repeat
        self.limit = sum(endpoint.timeouts.values())
        limits = httpx.Limits(max_connections=1, max_keepalive_connections=1, keepalive_expiry=15)
        at = endpoint.timeouts
        self.client = httpx.Client(
            transport=httpx.HTTPTransport(verify=_tls(endpoint.ca), limits=limits),
            timeout=httpx.Timeout(connect=at["connect"], write=at["write"], read=at["answer"], pool=1),
            headers={"user-agent": "postlude", "accept": "application/json", "accept-encoding": "identity"},
        )
        self.stream: Any = None  # of the connection in use, for looking whether the other side has spoken

    def send(self, message: Message, raw: bytes, intend: Callable[[], None]) -> Outcome:
        try:
            request = self.build(message, raw)
        except Refused as error:
            return Outcome("refused", "recipient" if "address" in str(error) else "message", str(error))
        secrets = [message.recipient.address, message.phone or ""]

        def fit(text: str) -> str:
            return sanitise(mask_numbers(text), *filter(None, secrets))

        outcome = Outcome("deferred", "relay", "no connection", retry_after=_SOON)
        again, recorded = 0, False

        def once() -> None:
            nonlocal recorded
            if not recorded:
                intend()
                recorded = True

        while True:
            progress = _Progress()
            try:
                outcome = self._exchange(request, once, progress, fit)
            except _NotRecorded as error:
                return Outcome("released", reply=f"intent not recorded: {error}")
            if progress.gone and not progress.fresh and not recorded:
                continue  # the kept connection was closed while nobody looked: a fresh one decides
            if outcome.kind == "ambiguous" and again < self.repeat:
                again += 1
                continue
            # a repetition that fails early says nothing about the one before it
            if again and outcome.kind == "deferred":
                return Outcome("ambiguous", reply=outcome.reply)
            return outcome

    def _exchange(self, request: Request, intend: Callable[[], None], progress: _Progress, fit: Fit) -> Outcome:
        try:
            answer = self._ask(request, intend, progress)
        except _NotRecorded:
            raise
        except Exception as error:
            why = _why(error)
            if progress.complete:
                return Outcome("ambiguous", reply=f"after the last byte: {why}")
            return Outcome("deferred", "relay", f"before the last byte: {why}", retry_after=_SOON)
        outcome = self.judge(answer, fit)
        if not progress.complete and outcome.kind in ("accepted", "ambiguous"):
            told = fit(f"{answer.status} before the message was complete")
            return Outcome("deferred", "relay", told, retry_after=_SOON)
        return outcome

    def _ask(self, request: Request, intend: Callable[[], None], progress: _Progress) -> Answer:
        def trace(name: str, info: dict[str, Any]) -> None:
            if name in ("connection.connect_tcp.complete", "connection.start_tls.complete"):
                self.stream, progress.fresh = info["return_value"], True

        made = self.client.build_request(
            request.method,
            request.url,
            headers={**request.headers, "content-length": str(len(request.body))},
            content=self._parts(request.body, intend, progress),
            extensions={"trace": trace},
        )
        # the client's own limit starts anew with every byte: an answer that drips would hold a worker for hours
        limit = Timer(self.limit, self._hang_up)
        limit.daemon = True
        response = None
        try:
            limit.start()
            response = self.client.send(made, stream=True)
            body = b""
            for part in response.iter_raw():
                body += part
                if len(body) > MAX_ANSWER:
                    raise httpx.DecodingError("the answer is longer than 64 KB")
            return Answer(response.status_code, response.headers, body)
        finally:
            limit.cancel()
            if response:
                response.close()

    def _hang_up(self) -> None:
        sock = self.stream.get_extra_info("socket") if self.stream else None
        with suppress(OSError):
            if sock:
                sock.shutdown(socket.SHUT_RDWR)

    def _parts(self, body: bytes, intend: Callable[[], None], progress: _Progress) -> Iterator[bytes]:
        for start in range(0, len(body) - 1, _BLOCK):
            yield body[start : min(start + _BLOCK, len(body) - 1)]
        self._still_quiet(progress)
        try:
            intend()
        except Exception as error:
            raise _NotRecorded(type(error).__name__) from None
        self._still_quiet(progress)
        progress.complete = True
        yield body[-1:]

    def _still_quiet(self, progress: _Progress) -> None:
        """An answer, or the end of the connection, before the last byte means the message was not taken: so that byte
        stays here. The client takes a write error as "now read what they said"."""
        state = _state_of(self.stream.get_extra_info("socket")) if self.stream else "quiet"
        if state != "quiet":
            progress.gone = state == "gone"
            raise httpcore.WriteError("the other side spoke first")


def _state_of(sock: socket.socket | None) -> str:
    """quiet, spoke or gone, without taking a byte from a plain connection."""
    if sock is None:
        return "quiet"
    before = sock.gettimeout()
    try:
        sock.settimeout(0)
        # TLS cannot peek; but what is no data (a session ticket) must not count as speech
        data = sock.recv(1) if isinstance(sock, ssl.SSLSocket) else sock.recv(1, socket.MSG_PEEK)
    except (BlockingIOError, ssl.SSLWantReadError):
        return "quiet"
    except (OSError, ValueError):
        return "gone"
    finally:
        with suppress(OSError):
            sock.settimeout(before)
    return "spoke" if data else "gone"


def _why(error: Exception) -> str:
    """In words, without host names or anybody's data."""
    words = {
        httpx.ConnectTimeout: "no connection in time",
        httpx.ConnectError: "no connection",
        httpx.ReadTimeout: "no answer in time",
        httpx.WriteTimeout: "not taken in time",
        httpx.RemoteProtocolError: "no well-formed answer",
        httpx.DecodingError: "over-long answer",
    }
    return next((told for kind, told in words.items() if isinstance(error, kind)), type(error).__name__)
