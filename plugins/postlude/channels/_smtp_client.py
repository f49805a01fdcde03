"""The wire of the SMTP channel: one connection, lines out, well-formed replies in, a time limit on everything.

It knows nothing about messages or blame. Whatever is not a complete, well-formed reply in time is `Lost`.
"""

from __future__ import annotations

import contextlib
import re
import select
import socket
import ssl
from dataclasses import dataclass
from ipaddress import ip_address
from time import monotonic

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


class Connection:
    """A connected socket that reads replies. Every failure is Lost; after one it is only good for closing."""

    def __init__(self, host: str, port: int, timeout: float, tls: ssl.SSLContext | None = None) -> None:
        self._host = host
        self._buffer = b""
        try:
            self._socket: socket.socket = socket.create_connection((host, port), timeout=max(timeout, 0.001))
        except (OSError, UnicodeError) as error:
            raise Lost(f"no connection: {_why(error)}") from None
        try:
            # without this the dot, a small write after a large one, waits for the body's acknowledgement
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._ready()
            if tls:
                self.start_tls(tls, timeout)
        except (OSError, Lost) as error:
            self.close()
            raise Lost(_why(error)) from None

    def start_tls(self, context: ssl.SSLContext, timeout: float) -> None:
        """Encrypt from here on. Plain text that came before the handshake is an injection, and Lost."""
        if self._buffer or self._spoke():
            raise Lost("the server spoke before TLS")
        try:
            self._socket.settimeout(timeout)
            self._socket = context.wrap_socket(self._socket, server_hostname=self._host)
            self._ready()
        except (OSError, ValueError) as error:
            raise Lost(f"no trusted TLS: {_why(error)}") from None

    @property
    def own_name(self) -> str:
        """Our address as an EHLO literal: true without asking any name server."""
        try:
            address = ip_address(str(self._socket.getsockname()[0]).partition("%")[0])
        except (OSError, ValueError):
            return "[127.0.0.1]"
        return f"[{address}]" if address.version == 4 else f"[IPv6:{address}]"

    def _ready(self) -> None:
        """Never block in the socket itself: we wait for it, with our own limits, and ask it nothing between."""
        self._socket.settimeout(0)
        self._readable, self._writable = select.poll(), select.poll()
        self._readable.register(self._socket, select.POLLIN)
        self._writable.register(self._socket, select.POLLOUT)

    def write(self, data: bytes, timeout: float) -> None:
        """Hand all of `data` to the kernel, each block of 64 KiB within `timeout` seconds."""
        try:
            for start in range(0, len(data), _BLOCK):
                self._write_block(data[start : start + _BLOCK], monotonic() + timeout)
        except (OSError, ValueError) as error:
            raise Lost(_why(error)) from None

    def _write_block(self, block: bytes, deadline: float) -> None:
        while block:
            try:
                block = block[self._socket.send(block) :]
            except (BlockingIOError, ssl.SSLWantWriteError):
                self._wait(self._writable, deadline)
            except ssl.SSLWantReadError:
                self._wait(self._readable, deadline)

    def _wait(self, event: select.poll, deadline: float) -> None:
        """Raises TimeoutError when it does not come in time."""
        left = deadline - monotonic()
        if left <= 0 or not event.poll(left * 1000 + 1):
            raise TimeoutError

    def reply(self, timeout: float) -> Reply:
        """The next reply, complete within `timeout` seconds however slowly it drips."""
        deadline = monotonic() + timeout
        lines: list[str] = []
        code = b""
        while len(lines) < _MAX_LINES:
            hit = _REPLY.fullmatch(self._line(deadline))
            if not hit or (code and hit[1] != code):
                raise Lost("garbled reply")
            code = hit[1]
            lines.append((hit[3] or b"").decode("utf-8", "replace").strip())
            if hit[2] != b"-":
                enhanced = _ENHANCED.match(lines[0])
                same_class = enhanced and enhanced[1] == code[:1].decode()
                return Reply(int(code), enhanced[0].strip() if enhanced and same_class else "", tuple(lines))
        raise Lost("endless reply")

    def _line(self, deadline: float) -> bytes:
        while True:
            end = self._buffer.find(b"\n")
            if end >= MAX_LINE or (end < 0 and len(self._buffer) >= MAX_LINE):
                raise Lost("over-long reply")
            if end >= 0:
                line, self._buffer = self._buffer[:end], self._buffer[end + 1 :]
                return line.removesuffix(b"\r")
            if deadline <= monotonic():
                raise Lost("no reply in time")
            try:
                if not self._pending():
                    self._wait(self._readable, deadline)
                data = self._socket.recv(4096)
            except (BlockingIOError, ssl.SSLWantReadError):
                continue
            except (OSError, ValueError) as error:
                raise Lost(_why(error)) from None
            if not data:
                raise Lost("connection closed in the middle of a reply" if self._buffer else "connection closed")
            self._buffer += data

    def quiet(self) -> bool:
        """True when the server has said nothing that is unread and has not hung up."""
        return not self._buffer and not self._spoke()

    def _spoke(self) -> bool:
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
        return isinstance(self._socket, ssl.SSLSocket) and self._socket.pending() > 0

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.close()


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
