"""A small shop for tests: people, orders, deliveries, and the days that pass; built by plain inserts."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, text

from postlude import audience, db, enrolment, feedback, outbox
from postlude.calendar import Calendar, load_calendar
from postlude.campaign import Campaign, load_campaign
from postlude.message import Message, Outcome
from postlude.settings import settings

INCLUDE = settings().include


def at(when: str) -> datetime:
    """ "2026-03-01" or "2026-03-01 09:30" in UTC."""
    return datetime.fromisoformat(when).replace(tzinfo=UTC)


def campaign(name: str, **changes: Any) -> Campaign:
    """A shipped campaign, without its holdout, so that tests know who gets mail."""
    loaded = load_campaign(INCLUDE / "campaigns" / f"{name}.yml")
    return loaded.model_copy(update={"audience": loaded.audience.model_copy(update={"holdout": 0.0}), **changes})


def calendar(**changes: Any) -> Calendar:
    return load_calendar(INCLUDE / "calendar.yml").model_copy(update=changes)


@dataclass
class Post:
    """A channel that remembers what it took; `answers` may replace the outcome of a hand-over."""

    taken: list[tuple[Message, bytes]] = field(default_factory=list)
    answer: Callable[[Message], Outcome] | None = None
    before_intent: Callable[[Message], None] | None = None
    reports: list[dict[str, Any]] = field(default_factory=list)
    idempotent: bool = False

    @contextmanager
    def connect(self, url: str) -> Iterator[Any]:
        yield self._send

    def _send(self, message: Message, raw: bytes, intend: Callable[[], None]) -> Outcome:
        if self.before_intent:
            self.before_intent(message)
        try:
            intend()
        except Exception as error:
            return Outcome("released", reply=type(error).__name__)
        outcome = self.answer(message) if self.answer else Outcome("accepted", reply="250 ok", provider_id="1")
        if outcome.kind in ("accepted", "ambiguous"):
            self.taken.append((message, raw))
        return outcome

    def events(self, url: str, since: datetime) -> Iterator[dict[str, Any]]:
        return iter(self.reports)


class World:
    """One shop in one database."""

    def __init__(self, engine: Engine, zone: str = "UTC") -> None:
        self.engine = engine
        self.post = Post()
        self.calendar = calendar()
        self._number = itertools.count(1)
        self.do(
            "insert into sources (source_id, shop, kind, currency, time_zone) values ('shop', 'Shop', 'files', 'EUR', :zone)",
            zone=zone,
        )
        self.do("insert into products (source_id, sku, name, category) values ('shop', 'mug', 'Blue mug', 'home'), "
                "('shop', 'soap', 'Lavender soap', 'consumable')")  # fmt: skip

    def do(self, statement: str, **params: Any) -> Any:
        with db.transaction(self.engine) as conn:
            result = conn.execute(text(statement), params)
            return result.all() if result.returns_rows else result.rowcount

    def one(self, statement: str, **params: Any) -> Any:
        return self.do(statement, **params)[0][0]

    def customer(self, name: str = "Ana", zone: str | None = None, consent: bool | None = True, **more: Any) -> int:
        number = next(self._number)
        row = {
            "email": f"{number}@customers.example", "first_name": name, "zone": zone, "marketplace": False,
            "key": str(number), **more,
        }  # fmt: skip
        customer = self.one(
            "insert into customers (source_id, source_customer_id, email, first_name, time_zone, marketplace, known_at) "
            "values ('shop', :key, :email, :first_name, :zone, :marketplace, '2020-01-01') returning customer_id", **row,
        )  # fmt: skip
        if consent is not None:
            self.consent(customer, consent, "2020-01-01")
        return customer

    def consent(self, customer: int, granted: bool, when: str) -> None:
        self.do("insert into consents values (:c, 'email', 'marketing', :granted, :at, 'opt_in', :at)",
                c=customer, granted=granted, at=at(when))  # fmt: skip

    def order(
        self, customer: int, placed: str, amount: float = 50, delivered: str | None = None, sku: str = "mug",
        cancelled: str | None = None,
    ) -> int:  # fmt: skip
        """An order known from the moment it was placed; `complete_until` of the shop moves with it."""
        order = self.one(
            "insert into orders (source_id, source_order_id, customer_id, currency, placed_at, cancelled_at, known_at, counted_at, "
            "counted_amount) values ('shop', :key, :c, 'EUR', :at, :cancelled, :at, :at, :amount) returning order_id",
            key=f"o{next(self._number)}", c=customer, at=at(placed), amount=amount, cancelled=at(cancelled) if cancelled else None,
        )  # fmt: skip
        self.do(
            "insert into order_lines values (:o, '1', :sku, 'x', 1, :amount, :at)",
            o=order,
            sku=sku,
            amount=amount,
            at=at(placed),
        )
        if delivered:
            self.do("insert into shipments (order_id, shipment_key, shipped_at, delivered_at) values (:o, '1', :at, :delivered)",
                    o=order, at=at(placed), delivered=at(delivered))  # fmt: skip
        return order

    def feed_complete_until(self, when: datetime) -> None:
        self.do("update sources set complete_until = :at", at=when)

    def plan(self, planned: Campaign, now: str | datetime, fresh: bool = True, release: bool = True) -> dict[str, Any]:
        """Segment and plan as of `now`, as the DAGs do."""
        moment = at(now) if isinstance(now, str) else now
        if fresh:
            self.feed_complete_until(moment)
        with db.transaction(self.engine) as conn:
            audience.derive_features(conn, moment, "test")
            audience.update_segments(conn, audience.load_segments(INCLUDE / "segments"), moment, "test")
        with db.transaction(self.engine) as conn:
            counts = enrolment.enrol(conn, planned, moment, "test", calendar=self.calendar)
            counts |= enrolment.schedule(conn, planned, self.calendar, moment, "test")
            if release:
                counts |= enrolment.release(conn, planned)
        return counts

    def deliver(
        self, *campaigns: Campaign, now: str | datetime, fresh: bool = True, worker: str = "w1", **more: Any
    ) -> dict[str, int]:
        moment = at(now) if isinstance(now, str) else now
        if fresh:
            self.feed_complete_until(moment)
        box = outbox.Outbox(
            engine=self.engine, channel=self.post, url="", campaigns=list(campaigns), calendar=self.calendar,
            clock=lambda: moment, worker=worker, **more,
        )  # fmt: skip
        return box.deliver()

    def feedback(self, now: str) -> dict[str, Any]:
        with db.transaction(self.engine) as conn:
            feedback.collect(conn, self.post, "", "email", at(now))
            return feedback.apply(conn, at(now))

    def states(self, customer: int | None = None) -> list[tuple[str, str, str | None]]:
        return [
            tuple(row)
            for row in self.do(
                "select step_id, state, reason from messages where :c::bigint is null or customer_id = :c order by due_at".replace(
                    ":c::bigint", "cast(:c as bigint)"
                ),
                c=customer,
            )
        ]

    def received(self, customer: int) -> list[str]:
        """Steps whose mail the customer got, in order."""
        mine = {
            row[0]: row[1]
            for row in self.do("select message_id, step_id from messages where customer_id = :c", c=customer)
        }
        return [mine[message.message_id] for message, _ in self.post.taken if message.message_id in mine]


def days(count: float) -> timedelta:
    return timedelta(days=count)


__all__ = ["INCLUDE", "Path", "Post", "World", "at", "calendar", "campaign", "days"]
