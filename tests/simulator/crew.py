"""Workers that take turns by the seed: each stands at named points, where it may be killed, or stall and come back as a zombie."""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

import greenlet

from postlude.outbox import Outbox
from simulator.shop import Shop


class Killed(BaseException):
    """kill -9: nothing in the worker runs any more; PostgreSQL rolls its open transaction back."""


@dataclass(frozen=True)
class Hazards:
    """Of a thousand points: how often a worker dies, stalls, or makes room for another one."""

    kill: float = 3
    stall: float = 2
    turn: float = 80


class Worker(Outbox):
    """The real outbox; it only says where it stands."""

    def claim(self, batch: int) -> Any:
        self.at("before the claim")
        judged = super().claim(batch)
        self.crew.saw(self, judged or [])
        self.at("claimed")
        return judged

    def _letters(self, claims: list[Any]) -> Any:
        letters = super()._letters(claims)
        self.at("letters read")
        return letters

    def _finish(self, *args: Any, **more: Any) -> None:
        self.at("before the settlement")
        late = self.counts["lost_claim"]
        super()._finish(*args, **more)
        self.crew.written(self.worker, args[0].message_id)
        if self.counts["lost_claim"] == late:
            self.crew.settled(args[0].message_id)
        self.at("settled")

    def at(self, point: str) -> None:
        self.crew.point(point, self)


@dataclass
class Crew:
    """Runs workers as greenlets of one thread: exactly one moves at a time, the seed says which."""

    shop: Shop
    seed: str
    hazards: Hazards
    saw: Callable[[Worker, list[Any]], None]
    settled: Callable[[UUID], None] = lambda _: None  # the outcome is stored
    written: Callable[[str, UUID], None] = lambda *_: (
        None
    )  # ... or came too late; who does not exist is remembered all the same
    zombies: list[tuple[Any, Worker]] = field(default_factory=list)
    current: Worker | None = None
    points: dict[str, int] = field(default_factory=dict)
    _hub: Any = None
    _stalled: bool = False

    def __post_init__(self) -> None:
        self.random = random.Random(f"{self.seed}/crew")

    def point(self, name: str, worker: Worker | None = None) -> None:
        worker = worker or self.current
        if self._hub is None or worker is None:
            return
        lot = self.random.random() * 1000 - self.hazards.kill
        if lot < 0:
            self.shop.count(f"killed {name}")
            raise Killed(name)
        if (lot := lot - self.hazards.stall) < 0:
            self.shop.count("stalled")
            self._stalled = True
            self._hub.switch()
        elif lot < self.hazards.turn:
            self._hub.switch()

    def run(self, workers: list[Worker]) -> None:
        """Until every worker is done, dead or stalled. Stalled ones of earlier runs may come back in between."""
        self._hub = greenlet.getcurrent()
        moving = [(greenlet.greenlet(self._work), worker) for worker in workers]
        for zombie in list(self.zombies):
            if not self.hazards.stall or self.random.random() < 0.5:
                self.zombies.remove(zombie)
                moving.append(zombie)
                self.shop.count("zombie came back")
        while moving:
            chosen = moving[self.random.randrange(len(moving))]
            green, self.current = chosen
            self._stalled = False
            green.switch(self.current)
            if green.dead:
                moving.remove(chosen)
            elif self._stalled:
                moving.remove(chosen)
                self.zombies.append(chosen)
        self._hub = self.current = None

    @staticmethod
    def _work(worker: Worker) -> None:
        with suppress(Killed):
            worker.deliver()


def worker(crew: Crew, name: str, clock: Callable[[], datetime], **more: Any) -> Worker:
    """One worker of this crew."""
    made = Worker(url="", worker=name, clock=clock, **more)
    made.crew = crew
    return made
