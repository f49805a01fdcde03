"""An SMTP server that misbehaves on purpose, at one chosen step, and keeps an honest ledger of what it took.

Faults are (step, action) pairs; each is used `times` times, then the server is well-behaved. A server that answers
4yz or 5yz has not taken the message, so only silence, garbage and 2yz exist at `dot-after-store`.

A second sink may take over port and ledger of one that died: `Sink(port=old.port, ledger=old.ledger)`.
"""

from __future__ import annotations

import re
import socket
import ssl
import struct
import threading
from base64 import b64decode
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from time import monotonic

STEPS = ("banner", "ehlo", "mail", "rcpt", "data", "body", "dot-before-store", "dot-after-store", "quit")
CODES = {
    "421": b"421 4.3.2 shutting down\r\n",
    "450": b"450 4.2.0 try later\r\n",
    "451": b"451 4.3.0 local problem\r\n",
    "452": b"452 4.5.3 too many recipients\r\n",
    "550": b"550 5.1.1 no such user\r\n",
    "552": b"552 5.3.4 message too big\r\n",
    "554": b"554 transaction failed\r\n",
}
TAKEN = {"251": b"251 will forward\r\n", "252": b"252 cannot verify but will try\r\n"}
NOISE = {
    "garbage": b"\x00\xffhello, this is not SMTP\r\n",
    "half reply": b"250 o",
    "9 kB line": b"250 " + b"x" * 9_000 + b"\r\n",
    "blank line": b"\r\n",
    "150": b"150 about to\r\n",
    "354": b"354 go ahead\r\n",
}
SILENCE = ("close", "reset", "stall")
SLOW = ("drip",)  # the proper answer, a byte at a time
ACTIONS = (*CODES, *TAKEN, *NOISE, *SILENCE, *SLOW)
FULL = b"452 4.3.1 insufficient system storage\r\n"


@dataclass(frozen=True)
class Entry:
    """One message that reached its end: who, what, whether we took it, and what we said."""

    message_id: str
    sha256: str
    accepted: bool
    replied: bytes
    raw: bytes
    at: float


class _Gone(Exception):
    """The connection is over."""


@dataclass
class Sink:
    """A scripted server on 127.0.0.1; use as a context manager."""

    faults: list[tuple[str, str]] = field(default_factory=list)
    times: int = 1
    offers: tuple[str, ...] = ("PIPELINING", "8BITMIME")
    tls: ssl.SSLContext | None = None
    login: tuple[str, str] | None = None
    lax: bool = False  # takes DATA although the recipient was refused
    replies: dict[str, bytes] = field(default_factory=dict)  # what a step answers, always
    ledger: list[Entry] = field(default_factory=list)
    recipients: list[int] = field(default_factory=list)  # RCPTs of each transaction
    lines: list[bytes] = field(default_factory=list)
    sessions: list[int] = field(default_factory=list)  # messages of each connection
    together: int = 0  # MAILs that came with what follows them
    body: bytes = b""  # of the transaction under way, as on the wire
    port: int = 0
    space: int | None = None  # so many messages fit on its disk
    pace: float = 0.02  # seconds a byte of a dripping answer
    at: dict[str, Callable[[], None]] = field(default_factory=dict)  # called when a step is reached, before its answer
    fired: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> Sink:
        self._left = {fault: self.times for fault in self.faults}
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._server = socket.create_server(("127.0.0.1", self.port))
        self.port = self._server.getsockname()[1]
        self._main = threading.Thread(target=self._accept, daemon=True)
        self._main.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.die()
        self._main.join(5)
        for thread in self._threads:
            thread.join(5)

    def die(self) -> None:
        """As if the process were killed: nothing listens any more, every connection ends."""
        self._stop.set()
        with suppress(OSError):
            self._server.shutdown(socket.SHUT_RDWR)  # wakes the accept
        self._server.close()
        with self._lock:
            for sock in self._open:
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)
                sock.close()

    @property
    def accepted(self) -> list[Entry]:
        return [entry for entry in self.ledger if entry.accepted]

    def url(self, query: str = "timeout=5") -> str:
        return f"smtp://127.0.0.1:{self.port}?{query}"

    def _accept(self) -> None:
        while not self._stop.is_set():
            try:
                sock, _ = self._server.accept()
            except OSError:
                return
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with self._lock:
                self._open.append(sock)
                self.sessions.append(0)
            thread = threading.Thread(target=self._serve, args=(sock, len(self.sessions) - 1), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket, number: int) -> None:
        try:
            _Talk(self, sock, number).run()
        except (_Gone, OSError, ValueError):
            pass
        finally:
            sock.close()

    def due(self, step: str) -> str | None:
        """The fault to commit at this step, used up by asking."""
        with self._lock:
            for fault, left in self._left.items():
                if fault[0] == step and left:
                    self._left[fault] = left - 1
                    return fault[1]
        return None


class _Talk:
    """One connection."""

    def __init__(self, sink: Sink, sock: socket.socket, number: int) -> None:
        self.sink, self.sock, self.number = sink, sock, number
        self.buffer = b""
        self.mail = self.rcpt = False

    def run(self) -> None:
        self.say("banner", b"220 sink ESMTP\r\n")
        while True:
            line = self.line()
            self.sink.lines.append(line)
            verb = line.split(b" ")[0].upper()
            getattr(self, f"do_{verb.decode().lower()}", self.do_unknown)(line)

    # -- in

    def recv(self) -> bytes:
        self.sock.settimeout(20)
        data = self.sock.recv(65_536)
        if not data:
            raise _Gone
        return data

    def line(self) -> bytes:
        while b"\r\n" not in self.buffer:
            self.buffer += self.recv()
        line, _, self.buffer = self.buffer.partition(b"\r\n")
        return line

    # -- out

    def say(self, step: str, normal: bytes) -> bytes:
        """Answer, or misbehave; the bytes said (none when silent)."""
        self.reach(step)
        action = self.sink.due(step)
        normal = self.sink.replies.get(step, normal)
        return self.commit(action, normal) if action else self.write(normal)

    def reach(self, step: str) -> None:
        if told := self.sink.at.get(step):
            told()

    def write(self, data: bytes) -> bytes:
        self.sock.sendall(data)
        return data

    def commit(self, action: str, normal: bytes = b"250 2.0.0 ok\r\n") -> bytes:
        try:
            if action in SILENCE:
                return self.silent(action)
            if action == "drip":
                for byte in normal:
                    self.write(bytes([byte]))
                    self.sink._stop.wait(self.sink.pace)
                return normal
            said = self.write((CODES | TAKEN | NOISE)[action])
        finally:
            self.sink.fired.set()
        if action in ("421", "half reply"):
            raise _Gone
        return said

    def silent(self, action: str) -> bytes:
        if action == "reset":
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if action in ("reset", "close"):
            self.sock.close()
            raise _Gone
        self.sink.fired.set()
        self.sink._stop.wait(20)
        raise _Gone

    # -- commands

    def do_unknown(self, line: bytes) -> None:
        self.write(b"500 5.5.2 what?\r\n")

    def do_ehlo(self, line: bytes) -> None:
        self.mail = self.rcpt = False
        offers = list(self.sink.offers)
        if self.sink.tls and not isinstance(self.sock, ssl.SSLSocket):
            offers.append("STARTTLS")
        if self.sink.login:
            offers.append("AUTH PLAIN LOGIN" if "LOGIN-ONLY" not in offers else "AUTH LOGIN")
        words = [b"sink", *(offer.encode() for offer in offers)]
        self.say("ehlo", b"".join(b"250%b%b\r\n" % (b" " if word is words[-1] else b"-", word) for word in words))

    def do_starttls(self, line: bytes) -> None:
        assert self.sink.tls
        self.write(b"220 go\r\n")
        self.sock = self.sink.tls.wrap_socket(self.sock, server_side=True)
        with self.sink._lock:
            self.sink._open.append(self.sock)

    def do_auth(self, line: bytes) -> None:
        way = line.split(b" ")[1].upper()
        if way == b"PLAIN":
            _, user, password = b64decode(line.split(b" ")[2]).split(b"\0")
        else:
            self.write(b"334 VXNlcm5hbWU6\r\n")
            user = b64decode(self.line())
            self.write(b"334 UGFzc3dvcmQ6\r\n")
            password = b64decode(self.line())
        right = self.sink.login and (user.decode(), password.decode()) == self.sink.login
        self.say("auth", b"235 2.7.0 welcome\r\n" if right else b"535 5.7.8 wrong\r\n")

    def do_mail(self, line: bytes) -> None:
        if self.mail:
            self.write(b"503 5.5.1 nested MAIL\r\n")
            return
        self.mail = self.say("mail", b"250 2.1.0 ok\r\n")[:1] == b"2"
        self.rcpt = False
        self.sink.recipients.append(0)
        self.sink.together += bool(self.buffer)

    def do_rcpt(self, line: bytes) -> None:
        if not self.mail:
            self.write(b"503 5.5.1 MAIL first\r\n")
            return
        self.sink.recipients[-1] += 1
        self.rcpt = self.say("rcpt", b"250 2.1.5 ok\r\n")[:1] == b"2"

    def do_data(self, line: bytes) -> None:
        if not self.rcpt and not self.sink.lax:
            self.write(b"503 5.5.1 RCPT first\r\n")
            return
        if self.say("data", b"354 go on\r\n")[:3] == b"354":
            self.take()

    def do_rset(self, line: bytes) -> None:
        self.mail = self.rcpt = False
        self.say("rset", b"250 2.0.0 ok\r\n")

    def do_quit(self, line: bytes) -> None:
        self.say("quit", b"221 2.0.0 bye\r\n")
        raise _Gone

    def take(self) -> None:
        self.mail = self.rcpt = False
        body, self.buffer = self.buffer, b""
        misbehaved = False
        while not (body.endswith(b"\r\n.\r\n") or body == b".\r\n"):
            body += self.recv()
            self.sink.body = body
            if not misbehaved and (action := self.sink.due("body")):
                misbehaved = True
                self.commit(action)
        if misbehaved:  # it answered early: whatever comes now is not taken
            raise _Gone
        raw = re.sub(rb"(?m)^\.", b"", body[:-3])
        self.finish(raw)

    def finish(self, raw: bytes) -> None:
        hit = re.search(rb"(?m)^Message-ID: <([^>]*)>", raw)
        name, digest = hit[1].decode() if hit else "", sha256(raw).hexdigest()
        with self.sink._lock:  # other connections write at the same time
            place = len(self.sink.ledger)
            self.sink.ledger.append(Entry(name, digest, False, b"", raw, monotonic()))

        def note(accepted: bool, replied: bytes = b"") -> None:
            self.sink.ledger[place] = Entry(name, digest, accepted, replied, raw, monotonic())

        self.reach("dot-before-store")
        if action := self.sink.due("dot-before-store"):
            self.commit(action)
            return
        if self.sink.space is not None and len(self.sink.accepted) >= self.sink.space:
            note(False, self.write(FULL))
            return
        normal = self.sink.replies.get("dot", b"250 2.0.0 Ok: queued as %b\r\n" % digest[:12].encode())
        note(normal[:1] == b"2")
        self.sink.sessions[self.number] += 1
        note(normal[:1] == b"2", self.say("dot-after-store", normal))
