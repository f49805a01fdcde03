"""WooCommerce as a source: REST API v3, by `modified_after`, pages by number.

Connection: `https://CONSUMER_KEY:CONSUMER_SECRET@shop.example` (with the folder of the shop, if it lives in one).
Newest first, on purpose: what is changed while pages are read then moves to a page that was read already, and pushes
others onto later pages. They come twice, and none is skipped; the next pull brings the changed one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

from pydantic import Field

from postlude.errors import Unavailable
from postlude.sources import Delivery, Progress, RawTable, Source, Taken, _connections, _http, _pull

CONNECTED = True
deliveries = _pull.deliveries
sample = _pull.sample


class Entity(_pull.Pulled):
    """One resource. `refunds` are those of the orders that changed; `customers` cannot be asked by change: all are read."""

    resource: Literal["orders", "refunds", "customers", "products"]
    page_size: int = Field(100, ge=1, le=100, description="records asked for at a time")


def read(source: Source, delivery: Delivery, into: RawTable, progress: Progress | None = None) -> Taken:
    """Append what changed. Raises InputError, Unavailable."""
    entity: Entity = source.entities[delivery.entity]
    items = _pull.saved(delivery.path, entity.resource) if delivery.path else _items(source, entity, delivery)
    version = {"refunds": "order_modified_gmt", "customers": "-"}.get(entity.resource, "date_modified_gmt")
    return _pull.take(delivery, into, _pull.records(items, source, delivery.entity, version), progress)


def _items(source: Source, entity: Entity, delivery: Delivery) -> Iterator[Any]:
    access = _connections.access(source)
    base = f"{_connections.web_address(source, access)}/wp-json/wc/v3"
    with _http.Api(source, base, auth=(access.login, access.password)) as api:
        if entity.resource != "refunds":
            yield from _pages(api, entity, entity.resource, _changed(entity, delivery))
            return
        # a refund moves its order's date of modification; the list of refunds itself cannot be asked by change
        for order in _pages(api, entity, "orders", _changed(entity, delivery)):
            if not order.get("refunds"):
                continue
            for refund in _pages(api, entity, f"orders/{_pull.text(order['id'])}/refunds", {}):
                moved = {"order_id": order["id"], "order_modified_gmt": order.get("date_modified_gmt")}
                yield {**refund, **moved}


def _changed(entity: Entity, delivery: Delivery) -> dict[str, Any]:
    if entity.resource == "customers":
        return {"orderby": "id", "order": "asc", "role": "all"}
    params: dict[str, Any] = {"orderby": "modified", "order": "desc"}
    if begin := _pull.since(entity, delivery):
        params |= {"modified_after": f"{begin:%Y-%m-%dT%H:%M:%S}", "dates_are_gmt": "true"}
    return params


def _pages(api: _http.Api, entity: Entity, path: str, params: dict[str, Any]) -> Iterator[Any]:
    number, seen = 1, 0
    while True:
        page, headers = api.get(path, {**params, "per_page": entity.page_size, "page": number})
        if not isinstance(page, list):
            raise api.mend("gives no list; check that its REST API is switched on")
        yield from page
        seen += len(page)
        if not page or number >= int(headers.get("X-WP-TotalPages") or number + (len(page) == entity.page_size)):
            break
        number += 1
    if seen < int(headers.get("X-WP-Total") or 0):
        raise Unavailable(
            f"{api.source.id}: {seen:,} of {int(headers['X-WP-Total']):,} records came; the rest is missing"
        )
