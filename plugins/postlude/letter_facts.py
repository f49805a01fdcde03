"""What a letter says of an order, its parcels, a return, a bill: from the row of a message to variables of templates.

The names are those of rendering.CONTEXT; whatever the shop did not tell is None or an empty list.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection, Mapping
from datetime import date, datetime
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import Row

from postlude.event_kinds import EVENTS
from postlude.rendering import plain
from postlude.rendering.variables import MAX_TEXT

_DAY = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d.{0,30}(Z|[+-]\d\d(:?\d\d)?))?$")
# what `facts` tells
NAMES = frozenset({
    "order", "item", "items", "shipment", "shipments", "refund", "bill", "rating", "event", "product", "cart", "notice", "contact",
})  # fmt: skip
# of these the row of a message knows without further questions
AT_HAND = frozenset(
    f"order.{part}"
    for part in ("?", "number", "placed_on", "delivered_on", "promised_on", "currency", "payment", "url")
)
# what else has to be read for it (43_letters)
PARTS = ["lines", "parcels", "return", "event", "score"]
_READ: Mapping[str, tuple[str, ...]] = {
    "order": ("lines", "parcels", "return"),
    **dict.fromkeys(("order.subtotal", "order.total", "item", "items"), ("lines",)),
    **dict.fromkeys(("order.shipped_on", "shipment", "shipments"), ("parcels",)),
    "order.state": ("parcels", "return"),
    **dict.fromkeys(("order.shipping", "order.discount", "order.tax", "order.address"), ()),
    **dict.fromkeys(AT_HAND, ()),
    "refund": ("return", "event"),
    **dict.fromkeys(("bill", "event", "product", "cart", "notice", "contact"), ("event",)),
    "rating": ("score",),
}
# a line of an order, as 43_letters writes it
LINE = ("sku", "name", "category", "url", "image_url", "quantity", "unit_price", "amount")
Lines = list[dict[str, Any]] | None
BILLS = ("payment_failed", "renewal_due")  # events that ask for money


def local_day(at: datetime | str | None, zone: str) -> date | None:
    """The day on the customer's clock."""
    if at is None:
        return None
    if isinstance(at, str):
        at = datetime.fromisoformat(at)
    return at.astimezone(ZoneInfo(zone)).date()


def parts(uses: Collection[str]) -> frozenset[str]:
    """Which of PARTS a template reads that uses these paths (rendering.Compiled.uses)."""
    roots = {path: path.partition(".")[0].removesuffix("[]") for path in uses}
    return frozenset(part for path, root in roots.items() for part in _READ.get(path, _READ.get(root, ())))


def facts(
    letter: Row[Any], definition: Mapping[str, Any], names: Collection[str] = NAMES, of_order: Collection[str] = ()
) -> dict[str, Any]:
    """What `names` ask for of the order and the event this message is about, as rendering.plain makes it; definition: of the campaign.

    of_order: its parts that are wanted; none named: all. Raises RenderError.
    """
    parcels = [_parcel(row, number, letter) for number, row in enumerate(letter.shipments or (), 1)]
    event = _event(letter) if letter.event is not None else None
    items = _lines(letter.items)
    known: dict[str, Callable[[], Any]] = {
        "order": lambda: _order(letter, items, parcels, of_order or _ORDER) if letter.order_number else None,
        "shipment": lambda: _shipment(letter, parcels),
        "shipments": lambda: parcels,
        "refund": lambda: _refund(letter, event),
        "bill": lambda: _bill(event) if letter.event_kind in BILLS else None,
        "rating": lambda: {"score": letter.score} if letter.score is not None else None,
        "event": lambda: event,
        "product": lambda: _product(event, letter.currency),
        "cart": lambda: _cart(event, letter.currency),
        "notice": lambda: _notice(event),
        "contact": lambda: _contact(event, definition.get("contact")),
    }
    told: dict[str, Any] = plain({name: known[name]() for name in names if name in known})
    if "items" in names:
        told["items"] = items
    if "item" in names:
        told["item"] = items[0] if items else None
    return told


def _lines(written: str | None) -> Lines:
    """The lines of an order as plain values, the dearest first; None: nobody has asked for them."""
    if written is None:
        return None
    lines = [dict(zip(LINE, row, strict=True)) for row in json.loads(written)]
    # in JSON a control character is an escape: without any, and short, each text in it is what `plain` would make of it
    if len(written) <= MAX_TEXT and "\\" not in written and written.isprintable():
        return lines
    checked: list[dict[str, Any]] = plain(lines)
    return checked


def _shipment(letter: Row[Any], parcels: list[dict[str, Any]]) -> dict[str, Any] | None:
    mine = next((parcel for parcel, row in zip(parcels, letter.shipments or (), strict=True) if row["mine"]), None)
    return mine or (parcels[0] if len(parcels) == 1 else None)


def _subtotal(items: Lines) -> Any:
    return sum([row["amount"] for row in items or ()])


def _state(letter: Row[Any], parcels: list[dict[str, Any]]) -> str:
    reached = (
        ("cancelled", letter.cancelled), ("returned", letter.returned), ("delivered", letter.delivered_at),
        ("shipped", any(parcel["shipped_on"] for parcel in parcels)),
    )  # fmt: skip
    return next((state for state, so in reached if so), "paid")


def _total(letter: Row[Any], items: Lines) -> Any:
    return letter.paid_amount if letter.paid_amount is not None else letter.counted_amount or _subtotal(items)


_ORDER: Mapping[str, Callable[[Row[Any], Lines, list[dict[str, Any]]], Any]] = {
    "number": lambda letter, items, parcels: letter.order_number,
    "placed_on": lambda letter, items, parcels: local_day(letter.placed_at, letter.zone),
    "delivered_on": lambda letter, items, parcels: local_day(letter.delivered_at, letter.zone),
    "promised_on": lambda letter, items, parcels: letter.promised_on,
    "currency": lambda letter, items, parcels: letter.order_currency,
    "payment": lambda letter, items, parcels: letter.payment,
    "url": lambda letter, items, parcels: letter.order_url,
    "state": lambda letter, items, parcels: _state(letter, parcels),
    "shipped_on": lambda letter, items, parcels: min(
        (p["shipped_on"] for p in parcels if p["shipped_on"]), default=None
    ),
    "subtotal": lambda letter, items, parcels: _subtotal(items),
    "shipping": lambda letter, items, parcels: letter.shipping_amount,
    "discount": lambda letter, items, parcels: letter.discount_amount,
    "tax": lambda letter, items, parcels: letter.tax_amount,
    "total": lambda letter, items, parcels: _total(letter, items),
    "address": lambda letter, items, parcels: [
        line.strip() for line in (letter.address or "").splitlines() if line.strip()
    ],
}


OF_ORDER = frozenset(_ORDER)


def _order(letter: Row[Any], items: Lines, parcels: list[dict[str, Any]], keys: Collection[str]) -> dict[str, Any]:
    return {key: _ORDER[key](letter, items, parcels) for key in keys}


def _parcel(row: Mapping[str, Any], number: int, letter: Row[Any]) -> dict[str, Any]:
    return {
        "number": number,
        "of": len(letter.shipments),
        "state": "delivered" if row["delivered_at"] else "shipped" if row["shipped_at"] else "packed",
        "carrier": row["carrier"],
        "tracking_number": row["tracking_number"],
        "tracking_url": row["tracking_url"],
        "shipped_on": local_day(row["shipped_at"], letter.zone),
        "eta_on": date.fromisoformat(row["eta_on"]) if row["eta_on"] else None,
        "delivered_on": local_day(row["delivered_at"], letter.zone),
        "items": [],
    }


def _refund(letter: Row[Any], event: Mapping[str, Any] | None) -> dict[str, Any] | None:
    told = letter.returned
    if told is None:
        return None
    due = date.fromisoformat(told["due_on"]) if told["due_on"] else (event or {}).get("due_on")
    return {
        "state": next((state for state in ("exchanged", "refunded", "received") if told[state]), "requested"),
        "amount": told["amount"],
        "currency": letter.order_currency,
        "due_on": due if isinstance(due, date) else None,
        "label_url": told["label_url"],
    }


def _event(letter: Row[Any]) -> dict[str, Any]:
    """The details as told, what was not told None; days, and the days of instants on the customer's clock, as dates."""
    told = {key: _day_of(value, letter.zone) for key, value in letter.event.items()}
    known = dict.fromkeys(EVENTS.get(letter.event_kind, ()))
    return known | told | {"kind": letter.event_kind, "on": local_day(letter.event_at, letter.zone)}


def _day_of(value: Any, zone: str) -> Any:
    if not isinstance(value, str) or not _DAY.match(value):
        return value
    try:
        return date.fromisoformat(value) if len(value) == 10 else local_day(value, zone)
    except ValueError:
        return value


def _bill(event: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if not event or event.get("amount") is None or not event.get("url"):
        return None
    return {
        "amount": event["amount"],
        "currency": event.get("currency"),
        "due_on": event.get("due_on") or event.get("renews_on"),
        "pay_url": event["url"],
    }


def _product(event: Mapping[str, Any] | None, currency: str) -> dict[str, Any] | None:
    if not event or not event.get("sku") or event.get("price") is None:
        return None
    return {
        "name": event.get("name"),
        "sku": event["sku"],
        "url": event.get("url"),
        "image_url": event.get("image_url"),
        "price": event["price"],
        "old_price": event.get("was"),
        "currency": event.get("currency") or currency,
    }


def _cart(event: Mapping[str, Any] | None, currency: str) -> dict[str, Any] | None:
    if not event or not isinstance(event.get("items"), list) or not event.get("url"):
        return None
    keys = ("name", "sku", "url", "image_url", "category", "quantity", "unit_price")
    items = [dict.fromkeys(keys) | item for item in event["items"] if isinstance(item, dict)]
    for item in items:
        item["amount"] = (item["quantity"] or 1) * item["unit_price"] if item["unit_price"] is not None else None
    return {
        "items": items,
        "amount": event.get("amount"),
        "currency": event.get("currency") or currency,
        "url": event["url"],
    }


def _notice(event: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if not event or not event.get("text"):
        return None
    return {"title": event.get("title"), "text": event["text"], "valid_until": event.get("valid_until")}


def _contact(event: Mapping[str, Any] | None, named: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Who looks after it: the owner told with the event, else whom the campaign file names."""
    if not event or not event.get("owner"):
        return dict(named) if named else None
    return {"name": event["owner"], "email": event.get("owner_email"), "phone": event.get("owner_phone")}
