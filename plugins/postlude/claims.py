"""What a mail claims of products (price, in stock) is compared with the catalogue at the last moment, and told as it is now.

An event tells a price when it happens; by the time its mail goes out the catalogue may say otherwise. What is wrong then is put
right; a mail that lives on it (the product is gone, the price is up again) is not sent.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection

from postlude import db
from postlude.rendering import RenderError, plain

Catalogue = Mapping[tuple[str, str], Mapping[str, Any]]  # (source, article number) -> row


class ClaimOutdated(RenderError):
    """What this mail is about is no longer so."""


def catalogue(conn: Connection, letters: Sequence[Any]) -> Catalogue:
    """The catalogue's rows of all articles that the events behind these letters name, by (source, article number)."""
    named = sorted({(letter.source_id, sku) for letter in letters for sku in _named(getattr(letter, "event", None))})
    if not named:
        return {}
    sources, skus = zip(*named, strict=True)
    rows = db.run(conn, "43_catalogue", sources=list(sources), skus=list(skus)).mappings()
    return {(row["source_id"], row["sku"]): plain(dict(row)) for row in rows}


def fresh(context: Mapping[str, Any], goods: Catalogue, source: str, uses: Collection[str]) -> dict[str, Any]:
    """The context with prices and stock as in the catalogue; articles it does not have stay as they were told.

    uses: paths of variables the template uses; what it does not show cannot keep it from going out.
    Raises ClaimOutdated when the mail's product is out of stock, its price is no lower than before, or nothing of a cart is left.
    """
    told = dict(context)
    product, cart = told.get("product"), told.get("cart")
    if product and _shown("product", uses) and (now := goods.get((source, product["sku"]))):
        told["product"] = _product(product, now)
    if cart and _shown("cart", uses):
        told["cart"] = _cart(cart, {sku: row for (shop, sku), row in goods.items() if shop == source})
    return told


def _shown(name: str, uses: Collection[str]) -> bool:
    return any(path == name or path.startswith(f"{name}.") for path in uses)


def _named(event: Mapping[str, Any] | None) -> set[str]:
    items = (event or {}).get("items")
    rows = [event or {}, *(items if isinstance(items, list) else ())]
    return {row["sku"] for row in rows if isinstance(row, dict) and isinstance(row.get("sku"), str)}


def _product(product: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    if now["in_stock"] is False:
        raise ClaimOutdated("the product of this mail is out of stock now")
    price = now["price"] if now["price"] is not None else product["price"]
    before = product.get("old_price")
    if before is not None and price is not None and Decimal(str(price)) >= Decimal(str(before)):
        raise ClaimOutdated("the price of this mail's product is no lower than before")
    return {**product, "price": price, **_page(product, now)}


def _cart(cart: Mapping[str, Any], goods: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    items = []
    for item in cart["items"]:
        now = goods.get(item.get("sku") or "")
        if now is None:
            items.append(item)
        elif now["in_stock"] is not False:
            price = now["price"] if now["price"] is not None else item["unit_price"]
            amount = None if price is None else price * (item["quantity"] or 1)
            items.append({**item, "unit_price": price, "amount": amount, **_page(item, now)})
    if not items:
        raise ClaimOutdated("nothing of the cart can be bought now")
    if items == cart["items"]:
        return dict(cart)
    amounts = [item["amount"] for item in items]
    known = all(amount is not None for amount in amounts)
    return {**cart, "items": items, "amount": sum((Decimal(str(a)) for a in amounts), Decimal(0)) if known else None}


def _page(told: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    return {key: now[key] or told.get(key) for key in ("name", "url", "image_url")}
