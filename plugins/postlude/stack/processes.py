"""Component processes of one home: started in sessions of their own, remembered by pid and birth, stopped for certain.

`<home>/run/<name>.pid` holds what is needed to find a component again from another command, `<home>/logs/<name>.log`
what it said.
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

import psutil

from postlude.errors import InputError, Unavailable

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@dataclass(frozen=True)
class Component:
    """One long-running process. Those of a lower `wave` are stopped first: they need the others to finish well."""

    name: str
    command: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    wave: int = 0
    grace: float = 15.0  # seconds between SIGTERM and SIGKILL


@dataclass(frozen=True)
class Record:
    """What the pid file of a component says. `born` tells the component from a stranger who got its pid later."""

    name: str
    pid: int
    born: str
    wave: int = 0
    grace: float = 15.0


class Interrupted(KeyboardInterrupt):
    """Ctrl-C, SIGTERM or SIGHUP; `signum` says which."""

    def __init__(self, signum: int) -> None:
        super().__init__(signal.Signals(signum).name)
        self.signum = signum


class Interrupts:
    """Turns the signals that mean "stop" into an exception, held back while a process is being recorded."""

    def __init__(self) -> None:
        self._held = 0
        self._waiting = 0

    def _on(self, signum: int, frame: FrameType | None) -> None:
        if self._held:
            self._waiting = signum
        else:
            raise Interrupted(signum)

    @contextmanager
    def caught(self) -> Iterator[None]:
        """Install the handlers (main thread only; elsewhere signals never arrive) and put the old ones back."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._on) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def held(self, forget: bool = False) -> Iterator[None]:
        """Nothing interrupts this block; the exception comes after it, or never with `forget` (while cleaning up)."""
        self._held += 1
        try:
            yield
        finally:
            self._held -= 1
            waiting, self._waiting = self._waiting, 0 if not self._held else self._waiting
            if waiting and not self._held and not forget:
                raise Interrupted(waiting)


class Processes:
    """The component processes of one home."""

    def __init__(self, home: Path, interrupts: Interrupts | None = None) -> None:
        self.home = home.resolve()
        self.run, self.logs = self.home / "run", self.home / "logs"
        self.interrupts = interrupts or Interrupts()
        self._children: dict[str, subprocess.Popen[bytes]] = {}

    def start(self, component: Component) -> Record:
        """Start a component in a session of its own, its output in its log; the log before it is kept as `.1`."""
        self.run.mkdir(parents=True, exist_ok=True)
        self.logs.mkdir(parents=True, exist_ok=True)
        path = self.log(component.name)
        if path.exists():
            path.replace(path.with_suffix(".log.1"))
        with self.interrupts.held(), path.open("wb") as log:
            try:
                child = subprocess.Popen(
                    component.command,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env=dict(component.env),
                    cwd=self.home,
                    start_new_session=True,
                )
            except OSError as error:
                raise Unavailable(f"{component.name} could not be started: {error}") from None
            record = Record(component.name, child.pid, birth(child.pid) or "", component.wave, component.grace)
            self._children[component.name] = child
            _write(self._pid_file(component.name), record.__dict__)
        return record

    def finished(self, name: str) -> int | None:
        """Exit status of a component started by this process; None while it runs."""
        return self._children[name].poll() if name in self._children else None

    def call(self, component: Component, timeout: float, watch: Callable[[str], None] | None = None) -> None:
        """Run a command to its end, stopped like a component when interrupted. `watch` gets the last line it said.

        Raises Unavailable with the end of its log when it fails or takes more than `timeout` seconds.
        """
        self.start(component)
        end = time.monotonic() + timeout
        while (status := self.finished(component.name)) is None and time.monotonic() < end:
            if watch:
                watch(self.last_line(component.name))
            time.sleep(0.1)
        self.stop([component.name], grace=5)
        if status != 0:
            what = f"took more than {timeout:.0f} s" if status is None else f"ended with status {status}"
            raise Unavailable(f"{component.name} {what}{self.tail(component.name)}")

    def records(self) -> list[Record]:
        """Components with a pid file, whether they run or not."""
        found = []
        for path in sorted(self.run.glob("*.pid")):
            with suppress(ValueError, TypeError):  # a pid file cut short by a full disk
                found.append(Record(**json.loads(path.read_text())))
        return found

    def running(self) -> list[Record]:
        return [record for record in self.records() if is_running(record)]

    def stop(self, names: Sequence[str] | None = None, grace: float = 15.0) -> list[str]:
        """Stop components (all by default): SIGTERM to each group, SIGKILL to what is left after `grace` seconds.

        Returns the names of those that were running. A pid that meanwhile belongs to somebody else is left alone.
        """
        records = [record for record in self.records() if names is None or record.name in names]
        stopped = []
        for wave in sorted({record.wave for record in records}):
            of_wave = [record for record in records if record.wave == wave]
            stopped += [record.name for record in of_wave if members(record, self.home)]
            _stop(of_wave, self.home, grace)
        for record in records:
            if child := self._children.pop(record.name, None):
                child.wait()
            self._pid_file(record.name).unlink(missing_ok=True)
        return stopped

    def log(self, name: str) -> Path:
        return self.logs / f"{name}.log"

    def last_line(self, name: str) -> str:
        with self.log(name).open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - 500))
            lines = log.read().decode(errors="replace").replace("\r", "\n").strip().splitlines()
        return lines[-1].strip() if lines else "working"

    def tail(self, name: str, lines: int = 15) -> str:
        """The end of a component's log as the end of an error message."""
        try:
            said = self.log(name).read_text(errors="replace").rstrip().splitlines()[-lines:]
        except FileNotFoundError:
            said = []
        return f"; {self.log(name)} ends:\n" + "\n".join(f"    {line}" for line in said or ["(nothing)"])

    def _pid_file(self, name: str) -> Path:
        return self.run / f"{name}.pid"

    @contextmanager
    def alone(self) -> Iterator[None]:
        """One `up` or `demo` at a time in one home; raises InputError when another one is at work."""
        self.run.mkdir(parents=True, exist_ok=True)
        with (self.run / "lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError(
                    f"another `make up` or `make demo` is at work in {self.home}; wait for it, or `make down`"
                ) from None
            yield


# ---------------------------------------------------------------- who is who


def birth(pid: int) -> str | None:
    """What tells this process from a later one with the same pid; None when there is none (or only a zombie)."""
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        with suppress(OSError):  # Linux: ticks since a boot, which no change of the clock moves
            boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
            return f"{boot}:{Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[19]}"
        return f"{process.create_time():.2f}"
    except psutil.Error:
        return None


def is_running(record: Record) -> bool:
    return bool(record.born) and birth(record.pid) == record.born


def members(record: Record, home: Path, descendants: bool = False) -> list[psutil.Process]:
    """All processes of a component: its session and, if asked for, descendants that left it.

    Airflow's tasks are in process groups of their own, but in its session. Of a dead leader's session only processes
    below `home` count: its number may by now be somebody else's.
    """
    now = birth(record.pid)
    if now and now != record.born:
        return []  # a stranger has the pid, so the session of ours is gone: a number in use is not given again
    found: dict[int, psutil.Process] = {}
    for pid in psutil.pids():
        with suppress(OSError, psutil.Error):
            if pid != os.getpid() and os.getsid(pid) == record.pid:
                process = psutil.Process(pid)
                if process.status() != psutil.STATUS_ZOMBIE and (now or Path(process.cwd()).is_relative_to(home)):
                    found[pid] = process
    for process in list(found.values()) if descendants else ():
        with suppress(psutil.Error):
            found |= {
                child.pid: child for child in process.children(recursive=True) if child.status() != psutil.STATUS_ZOMBIE
            }
    return list(found.values())


def _stop(records: list[Record], home: Path, longest: float) -> None:
    """SIGTERM to the leaders, which know best how to end their children; at half of the grace to all; then SIGKILL."""
    seen: dict[int, tuple[psutil.Process, float]] = {}

    def left(descendants: bool = False) -> list[tuple[psutil.Process, float]]:
        for record in records:
            for process in members(record, home, descendants):
                seen[process.pid] = process, min(record.grace, longest)
        return [found for found in seen.values() if _alive(found[0])]  # also those whose parent is gone meanwhile

    leaders = {record.pid for record in records if is_running(record)}
    for process, _ in left(descendants=True):
        with suppress(OSError, psutil.Error):
            if (
                process.pid in leaders or os.getsid(process.pid) not in leaders
            ):  # whose leader is gone, must be told itself
                process.terminate()
    began, told = time.monotonic(), 0.0
    while (survivors := left()) and (elapsed := time.monotonic() - began) < longest + 5:
        again = elapsed - told > 1
        for process, grace in survivors if again else ():
            if elapsed > grace / 2:
                told = elapsed
                with suppress(psutil.Error):
                    process.send_signal(signal.SIGKILL if elapsed > grace else signal.SIGTERM)
        time.sleep(0.05)


def _alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False


# ---------------------------------------------------------------- ports and small files


def free_port(wanted: int, taken: set[int], tries: int = 100) -> int:
    """`wanted`, or the next port of 127.0.0.1 that nobody uses and is not in `taken`."""
    for port in range(wanted, min(wanted + tries, 65536)):
        if port not in taken and _is_free(port):
            return port
    raise InputError(
        f"no free port from {wanted} to {wanted + tries - 1}; choose others with the POSTLUDE_…_PORT settings"
    )


def _is_free(port: int) -> bool:
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            return False
    with socket.socket() as client:  # where SO_REUSEADDR lets two listen, an answer tells
        client.settimeout(0.5)
        return client.connect_ex(("127.0.0.1", port)) != 0


def _write(path: Path, value: object) -> None:
    """Write JSON so that a reader sees all of it or the old one; only the owner may read it."""
    new = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        json.dump(value, file, indent=1)
    new.replace(path)
