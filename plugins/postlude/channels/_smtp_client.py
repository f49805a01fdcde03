"""The wire of the SMTP channel: one connection, lines out, well-formed replies in, a time limit on everything.

It knows nothing about messages or blame, and does not wait itself: its steps say what they wait for. Whatever is not a complete,
well-formed reply in time is `Lost`.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import socket
import ssl
from collections.abc import Generator
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import ip_address
from select import POLLIN, POLLOUT
from time import monotonic
from typing import Any, TypeVar, cast

T = TypeVar("T")

MAX_LINE = 512  # octets of a reply line with its line end, RFC 5321 section 4.5.3.1.5
_MAX_LINES = 100
_BLOCK = 65_536
_REPLY = re.compile(rb"([2-5][0-9][0-9])(?:([ -])(.*))?")
_ENHANCED = re.compile(r"([245])\.(\d{1,3})\.(\d{1,3})(?:\s+|$)")


class Lost(Exception):
    """No complete, well-formed reply: closed, reset, timed out, or not SMTP. The text says which."""


@dataclass(frozen=True)
class Reply:
    """A complete reply. enhanced: the code of RFC 3463 ("5.1.1") when it has one of the same class, else empty."""

    code: int
    enhanced: str
    lines: tuple[str, ...]

    @property
    def text(self) -> str:
        return f"{self.code} {' '.join(self.lines)}"

    @property
    def kind(self) -> int:
        return self.code // 100


Wait = tuple[
    "Connection", int, float
]  # wake me when this link can be read (POLLIN) or written (POLLOUT), or at this time
Steps = Generator[Any, bool, T]  # yields Waits; is sent whether what was waited for has come


def run(steps: Steps[T]) -> T:
    """Do the steps to their end, waiting where they wait."""
    try:
        wait = next(steps)
        while True:
            wait = steps.send(ready(wait))
    except StopIteration as end:
        return cast(T, end.value)


def ready(wait: Wait) -> bool:
    """Sleep until it has come; False when its time has passed before."""
    link, event, deadline = wait
    left = deadline - monotonic()
    return left > 0 and link.poll(event, left)


class Connection:
    """A connected socket that reads replies. Every failure is Lost; after one it is only good for closing.

    It never blocks: what may take time are steps, for whoever serves several connections at once.
    """

    def __init__(self, host: str) -> None:
        self._host = host
        self._buffer = b""
        self._socket: socket.socket | None = None
        self._wants = POLLOUT  # what the last push had to wait for

    def connect(self, port: int, timeout: float, tls: ssl.SSLContext | None = None) -> Steps[None]:
        deadline = monotonic() + max(timeout, 0.001)
        error: BaseException = OSError("no address")
        try:
            found = socket.getaddrinfo(self._host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as unknown:
            raise Lost(f"no connection: {_why(unknown)}") from None
        for family, kind, number, _, address in found:
            self.close()
            self._socket = socket.socket(family, kind, number)
            try:
                self._ready()
                with contextlib.suppress(BlockingIOError):
                    self._socket.connect(address)
                if not (yield self, POLLOUT, deadline):
                    raise TimeoutError
                if failed := self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                    raise OSError(failed, os.strerror(failed))
                break
            except OSError as trouble:
                error = trouble
        else:
            self.close()
            raise Lost(f"no connection: {_why(error)}")
        if tls:
            yield from self.start_tls(tls, timeout)

    def start_tls(self, context: ssl.SSLContext, timeout: float) -> Steps[None]:
        """Encrypt from here on. Plain text that came before the handshake is an injection, and Lost."""
        assert self._socket
        if self._buffer or self._spoke():
            raise Lost("the server spoke before TLS")
        deadline = monotonic() + timeout
        try:
            wrapped = context.wrap_socket(self._socket, server_hostname=self._host, do_handshake_on_connect=False)
            self._socket = wrapped
            self._ready()
            while True:
                try:
                    wrapped.do_handshake()
                    return
                except ssl.SSLWantReadError:
                    event = POLLIN
                except ssl.SSLWantWriteError:
                    event = POLLOUT
                if not (yield self, event, deadline):
                    raise TimeoutError
        except (OSError, ValueError) as error:
            raise Lost(f"no trusted TLS: {_why(error)}") from None

    @property
    def own_name(self) -> str:
        """Our address as an EHLO literal: true without asking any name server."""
        try:
            assert self._socket
            address = ip_address(str(self._socket.getsockname()[0]).partition("%")[0])
        except (OSError, ValueError):
            return "[127.0.0.1]"
        return f"[{address}]" if address.version == 4 else f"[IPv6:{address}]"

    @property
    def wire(self) -> socket.socket:
        """The socket to wait for."""
        assert self._socket
        return self._socket

    def at_once(self, event: int) -> bool:
        """Is there nothing to wait for?"""
        return event == POLLIN and self._pending()

    def _ready(self) -> None:
        """Never block in the socket itself: whoever takes our steps waits, with our limits, and asks it nothing between."""
        assert self._socket
        self._socket.settimeout(0)
        # without this the dot, a small write after a large one, waits for the body's acknowledgement
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._readable = select.poll()
        self._readable.register(self._socket, POLLIN)

    def poll(self, event: int, seconds: float) -> bool:
        """Wait for an event of this link alone."""
        if self.at_once(event):
            return True
        poll = select.poll()
        poll.register(self.wire, event)
        return bool(poll.poll(seconds * 1000 + 1))

    def push(self, data: bytes) -> bytes:
        """Hand to the kernel what it takes at once; the rest, nearly always nothing, is for `write`.

        No more than a block: TLS wants what it could not take again with the same end, and `write` cuts into blocks.
        """
        assert self._socket
        if len(data) > _BLOCK:
            return data
        try:
            sent = self._socket.send(data)
        except (BlockingIOError, ssl.SSLWantWriteError):
            self._wants = POLLOUT
            return data
        except ssl.SSLWantReadError:
            self._wants = POLLIN
            return data
        except (OSError, ValueError) as error:
            raise Lost(_why(error)) from None
        return b"" if sent == len(data) else data[sent:]

    def write(self, data: bytes, timeout: float) -> Steps[None]:
        """Hand all of `data` to the kernel, each block of 64 KiB within `timeout` seconds."""
        for start in range(0, len(data), _BLOCK):
            block, deadline = data[start : start + _BLOCK] if len(data) > _BLOCK else data, 0.0
            while block:
                size = len(block)
                block = self.push(block)
                if len(block) == size:
                    deadline = deadline or monotonic() + timeout
                    if not (yield self, self._wants, deadline):
                        raise Lost("timed out")

    def replies(self, shape: re.Pattern[bytes], timeout: float) -> Steps[bool]:
        """Take the next replies, when all of them come at once and have this shape; else they are left for `reply`."""
        if not self._buffer:
            yield from self._receive(monotonic() + timeout)
        found = shape.fullmatch(self._buffer)
        if found:
            self._buffer = b""
        return found is not None

    def reply(self, timeout: float) -> Steps[Reply]:
        """The next reply, complete within `timeout` seconds however slowly it drips."""
        deadline = monotonic() + timeout
        lines: list[str] = []
        code = b""
        while len(lines) < _MAX_LINES:
            end = self._buffer.find(b"\n")
            if not 0 <= end < MAX_LINE:
                yield from self._receive(deadline)
                continue
            line, self._buffer = self._buffer[:end], self._buffer[end + 1 :]
            whole = _single(line)
            if whole and not lines:
                return whole
            hit = _REPLY.fullmatch(line.removesuffix(b"\r"))
            if not hit or (code and hit[1] != code):
                raise Lost("garbled reply")
            code = hit[1]
            lines.append(_text(hit))
            if hit[2] != b"-":
                return _complete(code, lines)
        raise Lost("endless reply")

    def _receive(self, deadline: float) -> Steps[None]:
        """More of a reply."""
        assert self._socket
        if len(self._buffer) >= MAX_LINE:
            raise Lost("over-long reply")
        if deadline <= monotonic():
            raise Lost("no reply in time")
        try:
            if not self._pending() and not (yield self, POLLIN, deadline):
                raise Lost("no reply in time")
            data = self._socket.recv(4096)
        except (BlockingIOError, ssl.SSLWantReadError):
            return
        except (OSError, ValueError) as error:
            raise Lost(_why(error)) from None
        if not data:
            raise Lost("connection closed in the middle of a reply" if self._buffer else "connection closed")
        self._buffer += data

    def quiet(self) -> bool:
        """True when the server has said nothing that is unread and has not hung up."""
        return not self._buffer and not self._spoke()

    def _spoke(self) -> bool:
        assert self._socket
        try:
            if not self._pending() and not self._readable.poll(0):
                return False
            self._buffer += self._socket.recv(4096)
        except (BlockingIOError, ssl.SSLWantReadError):
            return False
        except (OSError, ValueError):
            return True
        return True  # data, or the end of it

    def _pending(self) -> bool:
        """Has TLS read what nobody has asked for yet? The kernel does not know of it."""
        return (
            type(self._socket) is not socket.socket
            and isinstance(self._socket, ssl.SSLSocket)
            and self._socket.pending() > 0
        )

    def close(self) -> None:
        if self._socket:
            with contextlib.suppress(OSError):
                self._socket.close()


def _text(line: re.Match[bytes]) -> str:
    return (line[3] or b"").decode("utf-8", "replace").strip()


def _complete(code: bytes, lines: list[str]) -> Reply:
    enhanced = _ENHANCED.match(lines[0])
    same_class = enhanced and enhanced[1] == code[:1].decode()
    return Reply(int(code), enhanced[0].strip() if enhanced and same_class else "", tuple(lines))


@lru_cache(maxsize=256)
def _single(line: bytes) -> Reply | None:
    """A reply of one line, as nearly all are, and nearly always the same few; None for any other line."""
    hit = _REPLY.fullmatch(line.removesuffix(b"\r"))
    return _complete(hit[1], [_text(hit)]) if hit and hit[2] != b"-" else None


def _why(error: BaseException) -> str:
    """In words, without host names or anybody's data."""
    if isinstance(error, Lost):
        return str(error)
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"certificate not accepted: {error.verify_message}"
    if isinstance(error, TimeoutError):
        return "timed out"
    if isinstance(error, socket.gaierror):
        return "the relay's name is not known"
    if isinstance(error, ssl.SSLError):
        return f"TLS failed: {error.reason or type(error).__name__}"
    return (error.strerror if isinstance(error, OSError) else None) or type(error).__name__
