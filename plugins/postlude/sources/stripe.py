"""Stripe as a source: lists by their window of creation, pages by `starting_after`.

Connection: `https://:SECRET_KEY@api.stripe.com` (a restricted key that may only read is enough). What changes after a
record was created is told by events, which Stripe keeps for 30 days.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any, Literal

from pydantic import Field

from postlude.sources import Delivery, Progress, RawTable, Source, Taken, _connections, _http, _pull
from postlude.timing import Duration

CONNECTED = True
deliveries = _pull.deliveries
sample = _pull.sample


class Entity(_pull.Pulled):
    """One kind of object."""

    resource: Literal["charges", "refunds", "invoices", "customers", "events"]
    types: tuple[str, ...] = Field((), max_length=20, description="events only: the types to read")
    expand: tuple[str, ...] = Field((), description='fields to have written out, e.g. "payments" of invoices')
    version: str = Field("", description="version of the API, e.g. 2026-09-30.name; empty: that of the account")
    look_back: Duration = Field(timedelta(hours=1), description="so much before the newest loaded record is read again")
    page_size: int = Field(100, ge=1, le=100, description="records asked for at a time")


def read(source: Source, delivery: Delivery, into: RawTable, progress: Progress | None = None) -> Taken:
    """Append what is new. Raises InputError, Unavailable."""
    entity: Entity = source.entities[delivery.entity]
    items = _pull.saved(delivery.path, entity.resource) if delivery.path else _items(source, entity, delivery)
    return _pull.take(delivery, into, _pull.records(items, source, delivery.entity, "created"), progress)


def _items(source: Source, entity: Entity, delivery: Delivery) -> Iterator[Any]:
    access = _connections.access(source)
    base = _connections.web_address(source, access, "api.stripe.com")
    headers = {"Authorization": f"Bearer {access.password or access.login}"}
    headers |= {"Stripe-Version": entity.version} if entity.version else {}
    params: dict[str, Any] = {"limit": entity.page_size}
    params |= {"expand[]": [f"data.{name}" for name in entity.expand]} if entity.expand else {}
    params |= {"types[]": list(entity.types)} if entity.types else {}
    if begin := _pull.since(entity, delivery):
        params["created[gte]"] = int(begin.timestamp())
    with _http.Api(source, base, headers=headers) as api:
        while True:
            page, _ = api.get(f"v1/{entity.resource}", params)
            if not isinstance(page, dict) or not isinstance(page.get("data"), list):
                raise api.mend(f"gives no list of {entity.resource}")
            yield from page["data"]
            if not page.get("has_more"):
                return
            if not page["data"]:
                raise api.mend("says there is more and gives nothing")
            params["starting_after"] = page["data"][-1].get("id")
