"""A mail server that delivers to nobody: it keeps every mail it gets in a folder and shows it on a web page.

Every copy is kept, so that a second copy of a message can be seen. It answers 250 only once the mail would survive a
power cut, and reports each as `delivered` on /api/events, as a provider would.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import signal
import socket
import threading
from pathlib import Path
from types import TracebackType
from typing import Any

from postlude.catcher.store import Mail, Store, opened
from postlude.errors import InputError, Unavailable

__all__ = ["Catcher", "Mail", "Store", "opened", "serve"]


class Catcher:
    """The two servers in a thread of their own. Port 0 takes any free port; see `smtp_url` and `http_url`.

    Raises InputError that names the port and its setting when a port is taken.
    """

    def __init__(self, folder: Path, smtp_port: int = 0, http_port: int = 0, host: str = "127.0.0.1") -> None:
        self.folder, self.host = Path(folder), host
        self._ports = smtp_port, http_port
        self._thread: threading.Thread | None = None

    def start(self) -> Catcher:
        with contextlib.ExitStack() as undo:
            smtp = undo.enter_context(_listening(self.host, self._ports[0], "POSTLUDE_CATCHER_SMTP_PORT"))
            http = undo.enter_context(_listening(self.host, self._ports[1], "POSTLUDE_CATCHER_HTTP_PORT"))
            self.smtp_port, self.http_port = smtp.getsockname()[1], http.getsockname()[1]
            self.store = Store(self.folder)
            undo.callback(self.store.close)
            self._up, self._trouble = threading.Event(), list[BaseException]()
            self._thread = threading.Thread(target=self._run, args=(smtp, http), name="mail-catcher", daemon=True)
            self._thread.start()
            if not self._up.wait(30) or self._trouble:
                raise Unavailable("the mail catcher did not start") from next(iter(self._trouble), None)
            self._undo = undo.pop_all()
        return self

    def stop(self) -> None:
        """Finish the mails under way and close both ports."""
        if self._thread:
            with contextlib.suppress(RuntimeError):  # the loop may have ended by itself
                self._loop.call_soon_threadsafe(self._end.set)
            self._thread.join(15)
            self._thread = None
            self._undo.close()

    def __enter__(self) -> Catcher:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    @property
    def alive(self) -> bool:
        return bool(self._thread and self._thread.is_alive())

    @property
    def http_url(self) -> str:
        return f"http://{_reached(self.host)}:{self.http_port}"

    @property
    def smtp_url(self) -> str:
        """For channels/smtp: where to send, and where to ask what happened."""
        return f"smtp://{_reached(self.host)}:{self.smtp_port}?events={self.http_url}/api/events"

    @property
    def mails(self) -> list[Mail]:
        """Everything caught, oldest first."""
        return self.store.all()

    def raw(self, mail: Mail) -> bytes:
        return self.store.raw(mail)

    # -- the thread

    def _run(self, smtp: socket.socket, http: socket.socket) -> None:
        try:
            asyncio.run(self._serve(smtp, http))
        except BaseException as error:  # handed to the thread that waits for us
            self._trouble.append(error)
        finally:
            self._up.set()

    async def _serve(self, smtp: socket.socket, http: socket.socket) -> None:
        import uvicorn
        from aiosmtpd.smtp import SMTP

        from postlude.catcher.pages import application

        logging.getLogger("mail.log").setLevel(logging.ERROR)  # aiosmtpd would log every recipient
        self._loop, self._end = asyncio.get_running_loop(), asyncio.Event()
        local = self.host in ("127.0.0.1", "localhost", "::1")
        app = application(self.store, ["127.0.0.1", "localhost"] if local else ["*"])
        config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off", timeout_graceful_shutdown=2)
        web = uvicorn.Server(config)
        handler = _Handler(self.store)
        mail = await self._loop.create_server(
            lambda: SMTP(handler, loop=self._loop, enable_SMTPUTF8=True, hostname="catcher", ident="Postlude"),
            sock=smtp,
        )
        pages = asyncio.create_task(web.serve(sockets=[http]))
        while not web.started and not pages.done():
            await asyncio.sleep(0.01)
        self._up.set()
        ended = asyncio.create_task(self._end.wait())
        await asyncio.wait({ended, pages}, return_when=asyncio.FIRST_COMPLETED)
        mail.close()
        web.should_exit = True
        await pages


class _Handler:
    """What aiosmtpd asks of us."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def handle_EHLO(self, server: Any, session: Any, envelope: Any, name: str, replies: list[str]) -> list[str]:
        session.host_name = name
        return [*replies[:-1], "250-PIPELINING", replies[-1]]

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        try:
            mail = await asyncio.to_thread(self._store.add, bytes(envelope.content), list(envelope.rcpt_tos))
        except OSError as error:
            return f"451 4.3.1 not stored: {error.strerror or type(error).__name__}"
        return f"250 2.0.0 Ok: queued as {mail.id}"


def _listening(host: str, port: int, setting: str) -> socket.socket:
    # asyncio turns off Nagle's 40 ms only for sockets that say they are TCP, which socket.create_server does not
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(128)
        return sock
    except OSError as error:
        sock.close()
        if error.errno not in (errno.EADDRINUSE, errno.EACCES):
            raise InputError(f"the mail catcher cannot listen on {host}: {error.strerror}") from None
        why = "is taken by another program" if error.errno == errno.EADDRINUSE else "may not be used by this user"
        raise InputError(f"port {port} for the mail catcher {why}; set {setting} to a free port") from None


def _reached(host: str) -> str:
    """How a listening address is reached from this machine."""
    return {"0.0.0.0": "127.0.0.1", "::": "[::1]", "::1": "[::1]"}.get(host, host)  # noqa: S104


def serve(folder: Path, smtp_port: int, http_port: int, host: str = "127.0.0.1") -> None:
    """Run until SIGTERM or SIGINT; to be called in the main thread."""
    asked = threading.Event()
    before = {number: signal.signal(number, lambda *_: asked.set()) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        with Catcher(folder, smtp_port, http_port, host) as catcher:
            print(f"mail catcher: {catcher.http_url}, SMTP on port {catcher.smtp_port}", flush=True)
            while not asked.wait(0.5):
                if not catcher.alive:
                    raise Unavailable("the mail catcher stopped by itself")
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
