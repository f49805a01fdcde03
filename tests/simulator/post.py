"""The outside: a relay with every fault there is, and the ledger of what it really took. Nothing here reads the database."""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

from postlude.message import Message, Outcome
from simulator.shop import Person, Shop

PATIENCE = timedelta(minutes=10)  # of the relay with a silent client
CODE = re.compile(r"Your own code: (\S*)")


@dataclass
class Dot:
    """One final dot that was written. stored: the outside has the message, whatever was answered."""

    message_id: UUID
    campaign: str
    kind: str
    address: str
    at: datetime
    count: int  # of everything that happened, when the intent was asked for
    asked: datetime
    worker: str
    digest: str
    code: str | None
    stored: bool = False
    answer: str = "none"
    settled: bool = False  # the worker that wrote it could still write down what became of it


@dataclass(frozen=True)
class Mixture:
    """How often the relay does what, of a thousand hand-overs; the rest is taken and answered."""

    busy_before: int = 15  # 450 at RCPT
    busy_after: int = 8  # 451 at the dot
    policy: int = 4
    lost_stored: int = 10
    lost_not_stored: int = 6


CALM = Mixture(0, 0, 0, 0, 0)


@dataclass
class Post:
    """A channel for the outbox. `point(name, worker, message)` is told where a worker stands; it may kill or switch."""

    shop: Shop
    seed: str
    mixture: Mixture
    clock: Callable[[], datetime]
    counter: Callable[[], int]
    point: Callable[[str, Message], None]
    worker: Callable[[], str]
    on_dot: Callable[[Dot], None]
    on_stored: Callable[[Dot, int], None]
    idempotent: bool = False
    down: list[tuple[datetime, datetime]] = field(default_factory=list)
    dots: list[Dot] = field(default_factory=list)
    copies: dict[UUID, int] = field(default_factory=dict)
    got: dict[str, UUID] = field(default_factory=dict)  # the last mail that an address has got
    reports: list[tuple[datetime, dict[str, Any]]] = field(default_factory=list)
    refused_for_good: set[str] = field(
        default_factory=set
    )  # addresses the relay said do not exist, and somebody could write it down
    heard: dict[tuple[str, UUID], str] = field(
        default_factory=dict
    )  # such an answer, until the worker that heard it writes it down

    def __post_init__(self) -> None:
        self.random = random.Random(f"{self.seed}/post")

    @contextmanager
    def connect(self, url: str) -> Iterator[Any]:
        yield self._send

    def _send(self, message: Message, raw: bytes, intend: Callable[[], None]) -> Outcome:
        count, now, tell = self.shop.count, self.clock(), self.point
        person = self.shop.at_address[message.recipient.address][0]
        if any(begins <= now < ends for begins, ends in self.down):
            count("relay down")
            return Outcome("deferred", "relay", "connection refused")
        lot, mix = self.random.randrange(1000), self.mixture
        if person.dead and lot > 100:
            self.heard[self.worker(), message.message_id] = message.recipient.address
            count("mailbox does not exist")
            return Outcome("refused", "recipient", "550 5.1.1 no such user", suppress=True)
        if (lot := lot - mix.busy_before) < 0:
            count("not now, before the dot")
            return Outcome("deferred", "recipient", "450 4.7.1 greylisted")
        if (lot := lot - mix.policy) < 0:
            count("refused by policy")
            return Outcome("refused", "policy", "550 5.7.1 not from you")
        tell("before the intent", message)
        count_then, asked = self.counter(), self.clock()
        try:
            intend()
        except Exception as error:
            count("intent refused")
            return Outcome("released", reply=type(error).__name__)
        tell("after the intent", message)
        if self.clock() - asked > PATIENCE:  # a worker that slept finds its connection closed
            count("connection closed meanwhile")
            return Outcome("ambiguous", reply="connection lost")
        dot = Dot(
            message.message_id, message.campaign_id, message.kind, message.recipient.address, self.clock(), count_then, asked,
            self.worker(),
            hashlib.sha256(raw).hexdigest(), found[1] if (found := CODE.search(message.text)) else None,
        )  # fmt: skip
        self.dots.append(dot)
        self.on_dot(dot)
        if (lot := lot - mix.busy_after) < 0:
            count("not now, after the dot")
            dot.answer = "451"
            return Outcome("deferred", "recipient", "451 4.3.0 try later")
        if (lot := lot - mix.lost_not_stored) < 0:
            count("answer lost, not stored")
            dot.answer = "lost"
            return Outcome("ambiguous", reply="connection lost")
        self._store(dot, person)
        if lot - mix.lost_stored < 0:
            count("answer lost, stored")
            dot.answer = "lost"
            return Outcome("ambiguous", reply="connection lost")
        tell("after it was taken", message)
        dot.answer = "250"
        return Outcome("accepted", reply="250 ok", provider_id=str(len(self.dots)))

    def settle(self, message: UUID) -> None:
        """The worker has written down what became of its last dot."""
        last = next((dot for dot in reversed(self.dots) if dot.message_id == message), None)
        if last:
            last.settled = True

    def write(self, worker: str, message: UUID) -> None:
        """A worker has come to the end of a hand-over: if it heard that the mailbox does not exist, the shop knows it now."""
        if address := self.heard.pop((worker, message), None):
            self.refused_for_good.add(address)

    def _store(self, dot: Dot, person: Person) -> None:
        dot.stored = True
        self.copies[dot.message_id] = self.copies.get(dot.message_id, 0) + 1
        self.got[dot.address] = dot.message_id
        self.on_stored(dot, self.copies[dot.message_id])
        draw, later = self.random, lambda hours: dot.at + timedelta(hours=self.random.uniform(0.1, hours))
        if person.bouncing:
            self._report(later(30), dot, "bounced", hard=True, status="5.1.1")
        elif draw.random() < 0.6:
            self._report(later(5), dot, "delivered")
        if draw.random() < person.touchy / 10:
            self._report(later(40), dot, "complained")
        if draw.random() < 0.1:
            self._report(later(60), dot, "clicked")

    def _report(self, at: datetime, dot: Dot, kind: str, **detail: Any) -> None:
        event = {"kind": kind, "message_id": str(dot.message_id), "at": at.isoformat(), "detail": detail}
        self.reports.append((at, event))

    def events(self, url: str, since: datetime) -> Iterator[dict[str, Any]]:
        """Whatever is there to tell by now; some of it is told twice."""
        now = self.clock()
        return iter([event for at, event in self.reports if since <= at <= now])
