"""The truth: what people and parcels of an invented shop really do, all of it drawn from one seed, none of it in a database.

Everything that happens is a `Fact` with two times: when it happened, and when the shop's feed tells it (late, again, out of
order, or after an outage). `Shop.told` is what has been told so far, folded here by rules of its own: the other half of every
comparison with the database.
"""

from __future__ import annotations

import heapq
import itertools
import random
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
# two hemispheres, a clock change of half an hour, one zone without any, one that nobody knows, one left to the shop
ZONES = (
    "Europe/Berlin",
    "America/New_York",
    "Asia/Seoul",
    "Australia/Lord_Howe",
    "America/Santiago",
    "Mars/Base",
    None,
)
SHOP_ZONE = "Europe/Berlin"
CATEGORIES = {"mug": "home", "soap": "consumable", "boots": "leather", "lamp": "electronics", "repair": "service"}


@dataclass
class Person:
    """A customer. `no`: when (count of everything that happened) and why the person became unreachable, by kind of mail."""

    key: str
    email: str
    zone: str | None
    consents: bool
    rate: float  # orders per day
    dead: bool = False  # the mailbox does not exist: the relay refuses it
    bouncing: bool = False  # accepted by the relay, returned later
    touchy: float = 0.0  # inclination to say no
    orders: list[Order] = field(default_factory=list)

    @property
    def clock(self) -> str:
        return self.zone if self.zone and "Mars" not in self.zone else SHOP_ZONE


@dataclass
class Order:
    """What truly became of one order. None: it never happened (or not yet)."""

    key: str
    person: Person | None
    placed: datetime
    sku: str
    amount: int
    cancelled: datetime | None = None
    shipped: datetime | None = None
    delivered: datetime | None = None
    returned: datetime | None = None
    closed: datetime | None = None
    reviewed: datetime | None = None
    versions: list[dict[str, Any]] = field(default_factory=list)


@dataclass(frozen=True)
class Fact:
    """One row of the feed. order: the order it is about."""

    entity: str
    row: dict[str, Any]
    order: Order


@dataclass
class Told:
    """What the feed has told about one order."""

    version: dict[str, Any] | None = None
    delivered: datetime | None = None
    shipped: datetime | None = None
    returned: datetime | None = None
    open_return: bool = False
    reviewed: datetime | None = None
    delivery_told_at: datetime | None = None

    @property
    def cancelled(self) -> bool:
        return bool(self.version and self.version["cancelled_at"])


class Shop:
    """People, their year, and the feed that tells it."""

    def __init__(
        self,
        seed: str,
        start: datetime,
        days: int,
        customers: int,
        guests_a_day: int,
        outages: list[tuple[datetime, datetime]],
        again: float = 0.08,
        pace: float = 1,
    ):
        self.random = random.Random(f"{seed}/shop")
        self.start, self.end = start, start + days * DAY
        self.outages, self.again, self.pace = outages, again, pace
        self.people = [self._person(number) for number in range(customers)]
        self.by_key = {person.key: person for person in self.people}
        self.at_address: dict[str, list[Person]] = {}
        for person in self.people:
            self.at_address.setdefault(person.email, []).append(person)
        self.orders: dict[str, Order] = {}
        self.told: dict[str, Told] = {}
        self.happened: dict[str, int] = {}
        self._feed: list[tuple[datetime, int, Fact]] = []
        self._serial = itertools.count()
        self.newest_told: datetime | None = None
        before = start - 260 * DAY
        for person in self.people:
            at = before
            while (at := at + timedelta(days=self.random.expovariate(person.rate))) < self.end:
                if person.rate > 0.015 and self.random.random() < 0.12:
                    # as good as lost; many come back just while they are told that they are missed
                    at += timedelta(days=self.random.choice((self.random.uniform(180, 207), 400)))
                if at < self.end:
                    self._order(person, at)
        at = start - 3 * DAY
        while at < self.end:  # guests: orders without a customer; they keep the feed alive
            at += timedelta(hours=self.random.uniform(0, 48 / guests_a_day))
            self._order(None, at)

    def count(self, situation: str, times: int = 1) -> None:
        self.happened[situation] = self.happened.get(situation, 0) + times

    # ------------------------------------------------------------ what happens

    def _person(self, number: int) -> Person:
        draw = self.random
        twin = number > 10 and draw.random() < 0.01
        mailbox = number - 1 if twin else number  # two customers of one address
        return Person(
            key=f"c{number}", email=f"{mailbox}@customers.example", zone=draw.choice(ZONES), consents=draw.random() < 0.85,
            rate=self.pace * draw.choice((1 / 20, 1 / 60, 1 / 120, 1 / 200)), dead=draw.random() < 0.02, bouncing=draw.random() < 0.02,
            touchy=draw.choice((0, 0, 0, 0.02, 0.1)),
        )  # fmt: skip

    def _order(self, person: Person | None, placed: datetime) -> None:
        draw = self.random
        order = Order(
            f"o{len(self.orders)}",
            person,
            placed.replace(microsecond=0),
            draw.choice(list(CATEGORIES)),
            draw.randint(5, 90),
        )
        self.orders[order.key] = order
        if person is None:
            self._version(order, order.placed, "paid", latest=1)
            return
        person.orders.append(order)
        fate = draw.random()
        order.shipped = order.placed + draw.uniform(0.5, 3) * DAY
        if fate < 0.06:
            order.cancelled = order.placed + draw.uniform(0, 6) * DAY
        if order.cancelled is None or order.cancelled > order.shipped:
            if draw.random() > 0.02:
                order.delivered = order.shipped + draw.uniform(1, 6) * DAY
        else:
            order.shipped = None
        if order.delivered and draw.random() < 0.07:
            order.returned = order.delivered + draw.uniform(0.2, 33) * DAY
            if draw.random() < 0.9:
                order.closed = order.returned + draw.uniform(1, 20) * DAY
        if order.delivered and draw.random() < 0.1:
            order.reviewed = order.delivered + draw.uniform(0.2, 35) * DAY
        for name in ("shipped", "delivered", "cancelled", "returned", "closed", "reviewed"):
            if when := getattr(order, name):
                setattr(order, name, when.replace(microsecond=0) if when < self.end else None)
        self._version(order, order.placed, "paid")
        if draw.random() < 0.2:
            self._version(order, order.placed + draw.uniform(0.1, 9) * DAY, "noted")
        if order.cancelled:
            self._version(order, order.cancelled, "cancelled", cancelled=True)
        if order.shipped:
            self._tell(order, "shipments", order.shipped, shipment_key="1", shipped_at=order.shipped)
        if order.delivered:
            self._tell(
                order,
                "shipments",
                order.delivered,
                shipment_key="1",
                shipped_at=order.shipped,
                delivered_at=order.delivered,
            )
        if order.returned:
            self._tell(order, "returns", order.returned, return_key="1", requested_at=order.returned)
            if order.closed:
                self._tell(
                    order,
                    "returns",
                    order.closed,
                    again=False,
                    return_key="1",
                    requested_at=order.returned,
                    closed_at=order.closed,
                )
        if order.reviewed:
            self._tell(
                order, "reviews", order.reviewed, review_key="1", score=draw.randint(1, 10), created_at=order.reviewed
            )

    def _version(self, order: Order, at: datetime, status: str, cancelled: bool = False, latest: float = 12) -> None:
        at = at.replace(microsecond=0)
        if at >= self.end:
            return
        kept = order.cancelled if order.cancelled and order.cancelled <= at else None
        row = {
            "source_order_id": order.key, "source_customer_id": order.person.key if order.person else None, "currency": "EUR",
            "status": status, "placed_at": order.placed, "cancelled_at": order.cancelled if cancelled else kept, "gift": False,
            "updated_at": at,
        }  # fmt: skip
        order.versions.append(row)
        self._push(Fact("orders", row, order), at, latest)

    def _tell(self, order: Order, entity: str, at: datetime, again: bool = True, **row: Any) -> None:
        fact = Fact(entity, {"source_order_id": order.key, **row}, order)
        # of returns the last delivery counts, so those never overtake each other
        self._push(fact, at, 12 if again and entity != "returns" else 0, again and entity != "returns")

    def _push(self, fact: Fact, at: datetime, latest: float, again: bool = True) -> None:
        draw, when = self.random, at + timedelta(hours=self.random.uniform(0, latest))
        self._visible(fact, when)
        if again and draw.random() < self.again:
            self.count("row told again")
            self._visible(fact, when + timedelta(days=draw.uniform(0, 20)))

    def _visible(self, fact: Fact, at: datetime) -> None:
        """Not before the outage is over that it falls into."""
        for begins, ends in self.outages:
            if begins <= at < ends:
                at = ends
                self.count("row held back by an outage")
        heapq.heappush(self._feed, (at, next(self._serial), fact))

    # ------------------------------------------------------------ the feed

    def deliver(self, now: datetime) -> list[Fact]:
        """What the feed has to tell at `now` and has not told yet, in any order; folded into `told` as well."""
        facts = []
        while self._feed and self._feed[0][0] <= now:
            facts.append(heapq.heappop(self._feed)[2])
        self._fold(facts, now)
        orders = [fact for fact in facts if fact.entity != "returns"]
        self.random.shuffle(orders)
        return orders + [fact for fact in facts if fact.entity == "returns"]

    def _fold(self, facts: list[Fact], now: datetime) -> None:
        for fact in facts:
            told, row = self.told.setdefault(fact.order.key, Told()), fact.row
            if fact.entity == "orders":
                if told.version is None or row["updated_at"] > told.version["updated_at"]:
                    told.version = row
                elif row["updated_at"] < told.version["updated_at"]:
                    self.count("older version after a newer one")
                self.newest_told = max(self.newest_told or row["placed_at"], row["placed_at"])
            elif fact.entity == "shipments":
                told.shipped = row["shipped_at"]
                if row.get("delivered_at") and not told.delivered:
                    told.delivered, told.delivery_told_at = row["delivered_at"], now
            elif fact.entity == "returns":
                told.returned, told.open_return = row["requested_at"], "closed_at" not in row
            else:
                told.reviewed = row["created_at"]

    def orders_after(self, person: Person, since: datetime, until: datetime, told: bool) -> list[Order]:
        """Orders of the person that were not cancelled, placed in (since, until): in truth, or as the feed has told."""
        found = []
        for order in person.orders:
            if since < order.placed < until:
                known = self.told.get(order.key)
                gone = (known is None or known.version is None or known.cancelled) if told else bool(order.cancelled)
                if not gone:
                    found.append(order)
        return found
