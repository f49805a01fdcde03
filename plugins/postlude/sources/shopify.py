"""Shopify as a source: the Admin REST API, by `updated_at`, pages by the `Link` header, paced by the call limit it tells.

Connection: `https://:ACCESS_TOKEN@SHOP.myshopify.com`. An order carries its lines, fulfilments and refunds.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import httpx
from pydantic import Field

from postlude.sources import Delivery, Progress, RawTable, Source, Taken, _connections, _http, _pull

CONNECTED = True
deliveries = _pull.deliveries
sample = _pull.sample


class Entity(_pull.Pulled):
    """One resource of the Admin API."""

    resource: Literal["orders", "customers", "products"]
    version: str = Field("2026-07", pattern=r"^\d{4}-\d{2}$", description="version of the Admin API")
    page_size: int = Field(250, ge=1, le=250, description="records asked for at a time")


def read(source: Source, delivery: Delivery, into: RawTable, progress: Progress | None = None) -> Taken:
    """Append what changed. Raises InputError, Unavailable."""
    entity: Entity = source.entities[delivery.entity]
    items = _pull.saved(delivery.path, entity.resource) if delivery.path else _items(source, entity, delivery)
    return _pull.take(delivery, into, _pull.records(items, source, delivery.entity, "updated_at"), progress)


def _items(source: Source, entity: Entity, delivery: Delivery) -> Iterator[Any]:
    access = _connections.access(source)
    base = _connections.web_address(source, access)
    params: dict[str, Any] = {"limit": entity.page_size}
    if begin := _pull.since(entity, delivery):
        params["updated_at_min"] = begin.isoformat()
    if entity.resource == "orders":
        params |= {"status": "any", "order": "updated_at asc"}  # else only open orders come
    with _http.Api(source, base, headers={"X-Shopify-Access-Token": access.password or access.login}) as api:
        url: str | None = f"admin/api/{entity.version}/{entity.resource}.json"
        while url:
            page, headers = api.get(url, params)
            if not isinstance(page, dict) or not isinstance(page.get(entity.resource), list):
                raise api.mend(f"gives no list of {entity.resource}; check the version of the API")
            yield from page[entity.resource]
            url, params = _next(headers), {}  # the address of the next page holds everything
            if url:
                _pace(headers)


def _next(headers: httpx.Headers) -> str | None:
    for link in headers.get("Link", "").split(","):
        address, _, about = link.partition(";")
        if 'rel="next"' in about:
            return str(address.strip().strip("<>"))
    return None


def _pace(headers: httpx.Headers) -> None:
    """Wait a moment when the bucket of calls is nearly full, rather than be refused."""
    used, _, size = headers.get("X-Shopify-Shop-Api-Call-Limit", "").partition("/")
    if used.isdigit() and size.isdigit() and int(used) >= int(size) - 2:
        _http.rest(_http.PAUSE)
