"""A shop that sells, ships, takes back and bills; and the quick lane that tells its customers of it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from postlude import db, enrolment
from postlude.campaign import Campaign
from postlude.message import Message
from world import World, at


class Shop(World):
    """World with what order mails speak of. Instants are UTC; the shop and its customers live in London."""

    def customer(self, name: str = "Ana", zone: str | None = "Europe/London", locale: str = "en", **more: Any) -> int:  # type: ignore[override]
        customer = super().customer(name, zone=zone, **more)
        self.do(
            "update customers set locale = :locale, country = 'GB' where customer_id = :c", locale=locale, c=customer
        )
        return customer

    def sale(self, customer: int, paid: str, amount: float = 50, sku: str = "mug", **more: Any) -> int:
        """A paid order; `more` are columns of orders."""
        order = self.order(customer, paid, amount=amount, sku=sku)
        self.tell_order(order, paid_at=at(paid), **more)
        return order

    def tell_order(self, order: int, **columns: Any) -> None:
        self.do(
            f"update orders set {', '.join(f'{name} = :{name}' for name in columns)} where order_id = :order",
            order=order,
            **columns,
        )

    def parcel(self, order: int, key: str = "1", shipped: str | None = None, **more: Any) -> None:
        """A parcel of the order, or what became of it; `more` are columns of shipments."""
        row = {"order_id": order, "shipment_key": key, "shipped_at": at(shipped) if shipped else None} | more
        given = [name for name in row if row[name] is not None and name not in ("order_id", "shipment_key")]
        changed = ", ".join(f"{name} = excluded.{name}" for name in given) or "carrier = shipments.carrier"
        self.do(
            f"insert into shipments ({', '.join(row)}) values ({', '.join(f':{name}' for name in row)}) "
            f"on conflict (order_id, shipment_key) do update set {changed}",
            **row,
        )

    def takes_back(self, order: int, requested: str, key: str = "r1", **more: Any) -> None:
        """A return of the order; `more` are columns of returns."""
        row = {"order_id": order, "return_key": key, "requested_at": at(requested)} | more
        self.do(
            f"insert into returns ({', '.join(row)}) values ({', '.join(f':{name}' for name in row)}) "
            f"on conflict (order_id, return_key) do update set {', '.join(f'{n} = excluded.{n}' for n in list(row)[2:])}",
            **row,
        )

    def happens(self, customer: int, kind: str, when: str, order: int | None = None, **detail: Any) -> str:
        """An event from outside, or worked out; its key."""
        key = f"{kind}-{next(self._number)}"
        self.do(
            "insert into external_events (source_id, event_key, customer_id, kind, at, known_at, order_id, detail) "
            "values ('shop', :key, :c, :kind, :at, :at, :order, cast(:detail as jsonb))",
            key=key, c=customer, kind=kind, at=at(when), order=order, detail=db.dumps(detail),
        )  # fmt: skip
        return key

    def asks(self, customer: int, opened: str, topic: str | None = None, closed: str | None = None) -> None:
        """A question to customer service."""
        self.do(
            "insert into tickets (source_id, ticket_key, customer_id, opened_at, closed_at, topic) "
            "values ('shop', :key, :c, :opened, :closed, :topic)",
            key=f"t{next(self._number)}", c=customer, opened=at(opened), closed=at(closed) if closed else None, topic=topic,
        )  # fmt: skip

    def lane(self, campaign: Campaign, now: str | datetime, fresh: bool = True) -> dict[str, Any]:
        """What the DAG `transactional` does with one campaign: plan as of `now`, and hand over."""
        moment = at(now) if isinstance(now, str) else now
        with db.transaction(self.engine) as conn:
            counts = enrolment.enrol(conn, campaign, moment, "test", calendar=self.calendar)
            counts |= enrolment.schedule(conn, campaign, self.calendar, moment, "test")
            counts |= enrolment.release(conn, campaign)
        self.deliver(campaign, now=moment, fresh=fresh)
        return counts

    def refused(self, customer: int) -> tuple[str, ...]:
        """Why campaigns did not enrol this customer."""
        return tuple(
            row[0] for row in self.do("select reason from refusals where customer_id = :c order by 1", c=customer)
        )

    def mails(self, customer: int) -> list[Message]:
        """What the customer got, in order."""
        mine = {row[0] for row in self.do("select message_id from messages where customer_id = :c", c=customer)}
        return [message for message, _ in self.post.taken if message.message_id in mine]

    def times(self, customer: int) -> list[str]:
        """When each message was handed over, as 2026-03-02 09:00 UTC."""
        rows = self.do(
            "select handed_over_at from messages where customer_id = :c and state = 'sent' order by 1", c=customer
        )
        return [f"{row[0]:%Y-%m-%d %H:%M}" for row in rows]
