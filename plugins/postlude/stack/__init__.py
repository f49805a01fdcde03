"""Postlude on one machine: `make up`, `make down`, `make logs`, `make demo`.

    up()      PostgreSQL, Airflow (api-server, scheduler, dag-processor, triggerer), public pages, mail catcher
    down()    stops what `up` started in this home, and nothing else
    demo()    up, the sample shop, one pass of the pipeline through the scheduler, a summary; stops everything again
    logs()    what the components said
    status()  what runs, where

A step that fails, and Ctrl-C, stop everything that was started. The functions raise PostludeError with a message for
people, or Interrupted (a KeyboardInterrupt) after a signal.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
from sqlalchemy.engine import URL

from postlude import db
from postlude.errors import InputError, Unavailable
from postlude.settings import Settings, settings
from postlude.stack.api import Api
from postlude.stack.installation import PORTS, Installation
from postlude.stack.processes import Component, Interrupted, Interrupts, Processes
from postlude.stack.telling import Teller

__all__ = ["Interrupted", "Stack", "demo", "down", "logs", "running_settings", "status", "up"]


class Stack:
    """Everything of one home, from the database up. Tests replace `prepare`, `components` and `waiting_for`."""

    grace = 15.0  # seconds between SIGTERM and SIGKILL

    def __init__(
        self, config: Settings | None = None, dags: Path | None = None, eager: bool = False, tell: Teller | None = None
    ) -> None:
        self.config = config or settings()
        self.tell = tell or Teller()
        self.at = Installation(self.config, dags, eager)
        self.interrupts = Interrupts()
        self.processes = Processes(self.at.home, self.interrupts)
        self.started_at = datetime.now(UTC)
        self.env: dict[str, str] = {}

    # ------------------------------------------------------------ up and down

    def start(self, timeout: float = 180) -> None:
        """Start everything and wait until it is healthy; raises Unavailable, with the end of a log, if it never is."""
        self.prepare()
        self.started_at = datetime.now(UTC).replace(microsecond=0)
        parts = self.components()
        with self.tell.step("Airflow, public pages, mail catcher") as step:
            for part in parts:
                self.processes.start(part)
            end = time.monotonic() + timeout
            while waiting := self.waiting_for():
                step(f"waiting for {', '.join(waiting)}")
                self.check_alive()
                if time.monotonic() > end:
                    names = [
                        part.name
                        for part in parts
                        if part.name.replace("-", "_") in {w.replace("-", "_") for w in waiting}
                    ]
                    raise Unavailable(
                        f"not healthy after {timeout:.0f} s: {', '.join(waiting)}"
                        + "".join(self.processes.tail(name) for name in names or ["api-server"])
                    )
                time.sleep(0.3)

    def check_alive(self) -> None:
        """Raises Unavailable, with the end of its log, when a component has ended by itself."""
        alive = {record.name for record in self.processes.running()}
        for record in self.processes.records():
            if record.name not in alive:
                code = self.processes.finished(record.name)
                how = "ended" if code is None else f"ended with status {code}"
                raise Unavailable(f"{record.name} {how}{self.processes.tail(record.name)}")

    def stop(self) -> list[str]:
        """Stop everything of this home; returns what was running. Not interruptible: half a stop helps nobody."""
        with self.interrupts.held(forget=True):
            stopped = self.processes.stop(grace=self.grace)
            if self.at.embedded and stop_server(self.at.embedded):
                stopped.append("PostgreSQL")
            return stopped

    @contextmanager
    def stopped_if_it_fails(self) -> Iterator[None]:
        """Within, a failure or a signal stops everything that was started, before it goes on its way."""
        with self.interrupts.caught():
            try:
                yield
            except BaseException as error:
                if isinstance(error, Interrupted):
                    self.tell.line("\ninterrupted: stopping everything ...")
                stopped = self.stop()
                self.tell.line(f"stopped {', '.join(stopped) or 'nothing: nothing was running'}")
                raise

    # ------------------------------------------------------------ what it consists of

    def prepare(self) -> None:
        """Ports, keys, databases and their schemas: all the components need."""
        self.at.choose_ports(lambda text: self.tell.line(f"  ! {text}"))
        self.at.write_airflow_settings()
        self.at.passwords()
        with self.tell.step("PostgreSQL") as step:
            # a signal in the middle of starting a server would leave one we do not know of
            with self.interrupts.held():
                ours = self.at.database()
            step.note = (
                f"embedded in {self.at.embedded}"
                if self.at.embedded
                else f"server of POSTLUDE_DB_URL, {ours.host or 'local'}"
            )
            self.env = self.at.environment(ours)
        with self.tell.step("databases and schemas") as step:
            new = [url.database for url in (ours, self.at.airflow_database(ours)) if db.create_database(url)]
            step.note = f"created {' and '.join(map(str, new))}" if new else ""
            self._migrate(ours)

    def _migrate(self, ours: URL) -> None:
        with ThreadPoolExecutor(1) as pool:  # ours takes a second, Airflow's several: at the same time
            mine = pool.submit(db.migrate, ours)
            self.processes.call(
                Component("airflow-db-migrate", (sys.executable, "-m", "airflow", "db", "migrate"), self.env),
                timeout=240,
            )
            mine.result()

    def components(self) -> list[Component]:
        return self.at.components(self.env)

    def waiting_for(self) -> list[str]:
        """Names of what does not answer yet."""
        urls = self.at.urls
        with closing(Api(urls["airflow"])) as api:
            waiting = [name for name, url in (("catcher", urls["mail"]), ("web", urls["web"])) if not api.answers(url)]
            said = api.unhealthy(self.started_at)
        return waiting + (["api-server"] if "metadatabase" in said else said)

    def where(self) -> list[tuple[str, str]]:
        """What a person can open, and how to sign in."""
        urls, passwords = self.at.urls, self.at.passwords()
        return [
            ("Airflow", f"{urls['airflow']}  sign in as admin, password {passwords['admin']}"),
            ("", f"also marketer, oncall, viewer: {self.at.airflow_home / 'passwords.json'}"),
            ("Mail catcher", urls["mail"]),
            ("Public pages", urls["web"]),
            ("Logs", str(self.processes.logs)),
        ]


# ---------------------------------------------------------------- the commands


def up(
    *, config: Settings | None = None, dags: Path | None = None, tell: Teller | None = None, stack: Stack | None = None
) -> Stack:
    """Start everything and leave it running. Where it runs already, say so; where half of it runs, start afresh."""
    stack = stack or Stack(config, dags, tell=tell)
    with stack.processes.alone():
        if not _already_up(stack):
            with stack.stopped_if_it_fails():
                stack.start()
    stack.tell.line()
    for name, what in stack.where():
        stack.tell.line(f"{name:14}{what}")
    stack.tell.line(f"{'Stop':14}make down")
    return stack


def down(*, config: Settings | None = None, tell: Teller | None = None, stack: Stack | None = None) -> list[str]:
    """Stop what `up` started in this home; returns the names of what was running."""
    stack = stack or Stack(config, tell=tell)
    with stack.interrupts.caught(), stack.tell.step("stopping") as step:
        stopped = stack.stop()
        step.note = ", ".join(stopped) or f"nothing was running in {stack.at.home}"
    return stopped


def demo(
    *,
    customers: int = 20_000,
    seed: int = 7,
    config: Settings | None = None,
    dags: Path | None = None,
    tell: Teller | None = None,
    stack: Stack | None = None,
) -> dict[str, Any]:
    """The sample shop and one full pass of the pipeline through the scheduler; returns the summary it prints.

    Where the stack runs already it is used and left running; else everything is stopped at the end.
    A second demo in the same home keeps the sample and sends nothing twice.
    """
    from postlude.stack.tour import one_pass, sample, show

    stack = stack or Stack(config, dags, eager=True, tell=tell)
    began = time.monotonic()
    with stack.processes.alone():
        was_up = _already_up(stack)
        with stack.interrupts.caught() if was_up else stack.stopped_if_it_fails():
            if not was_up:
                stack.start()
            elif not stack.env:
                stack.env = stack.at.environment(stack.at.database())
            sample(stack, customers, seed)
            found = one_pass(stack)
            if not was_up:
                with stack.tell.step("stopping"):
                    stack.stop()
    show(stack, found, running=was_up, seconds=time.monotonic() - began)
    return found


def logs(
    names: list[str] | None = None, *, follow: bool = False, lines: int = 30, config: Settings | None = None
) -> None:
    """Print the end of the components' logs; with `follow`, what they say from now on, until Ctrl-C."""
    processes = Processes((config or settings()).home)
    known = sorted(path.stem for path in processes.logs.glob("*.log"))
    if not known:
        raise InputError(f"no logs in {processes.logs}; nothing was started here yet")
    if unknown := set(names or ()) - set(known):
        raise InputError(f"no log of {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    ends: dict[Path, int] = {}
    for name in names or known:
        path = processes.log(name)
        said = path.read_bytes()
        ends[path] = len(said)
        print(f"==> {path} <==", *said.decode(errors="replace").splitlines()[-lines:], "", sep="\n")
    while follow:
        time.sleep(0.5)
        for path, end in ends.items():
            size = path.stat().st_size if path.exists() else 0
            if size == end:
                continue
            with path.open("rb") as file:
                file.seek(end if size > end else 0)  # started anew: from its beginning
                for line in file.read(size - (end if size > end else 0)).decode(errors="replace").splitlines():
                    print(f"{path.stem:14}{line}", flush=True)
            ends[path] = size


def status(*, config: Settings | None = None) -> dict[str, Any]:
    """What runs in this home: {"components": {name: {"pid", "running"}}, "health": ..., "ports": ..., "urls": ...}."""
    stack = Stack(config)
    alive = {record.name for record in stack.processes.running()}
    with closing(Api(stack.at.urls["airflow"])) as api:
        health = {
            name: (said or {}).get("status") for name, said in (api.health() if "api-server" in alive else {}).items()
        }
    return {
        "home": str(stack.at.home),
        "components": {r.name: {"pid": r.pid, "running": r.name in alive} for r in stack.processes.records()},
        "postgresql": str(stack.at.embedded) if stack.at.embedded else "POSTLUDE_DB_URL",
        "health": health,
        "ports": stack.at.ports,
        "urls": stack.at.urls,
    }


def running_settings(config: Settings | None = None) -> Settings:
    """The settings with the ports of the stack that runs in this home, where it had to take other ones."""
    config = config or settings()
    at = Installation(config)
    if not Processes(config.home).running():
        return config
    web = {"web_url": at.urls["web"]} if config.web_url == Settings.model_fields["web_url"].default else {}
    return config.model_copy(update={setting: at.ports[name] for name, setting in PORTS.items()} | web)


# ---------------------------------------------------------------- details


def _already_up(stack: Stack) -> bool:
    """True when every component runs and is healthy; a half-dead stack is stopped, so that it can start afresh."""
    records, running = stack.processes.records(), stack.processes.running()
    if not records:
        return False
    stack.started_at = datetime.fromtimestamp(0, UTC)
    if len(running) == len(records) and not stack.waiting_for():
        stack.tell.line(f"already running in {stack.at.home}")
        return True
    with stack.interrupts.caught(), stack.tell.step("stopping what is left of an earlier start") as step:
        step.note = ", ".join(stack.stop())
    return False


def stop_server(data: Path, patience: float = 20) -> bool:
    """Stop the embedded PostgreSQL, also one that is only just starting; False when none was running."""
    end = time.monotonic() + patience
    while _is_server(data / "postmaster.pid"):
        if db.stop_embedded(data):
            return True
        if time.monotonic() > end:
            raise Unavailable(f"the embedded PostgreSQL in {data} neither starts nor stops; look into {data / 'log'}")
        time.sleep(0.2)
    return False


def _is_server(pid_file: Path) -> bool:
    """Whether the pid in PostgreSQL's pid file is a PostgreSQL; after a crash or a reboot it may be anybody's."""
    try:
        process = psutil.Process(int(pid_file.read_text().split()[0]))
        return process.name().startswith("postgres") and process.status() != psutil.STATUS_ZOMBIE
    except (OSError, ValueError, IndexError, psutil.Error):
        return False
