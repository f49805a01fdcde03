"""What a template may use: the variables with their meaning, people to try a template on, and what a value may be."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from postlude.errors import PostludeError
from postlude.rendering.theme import Theme

# dotted path -> what it is; `[]` is an entry of a list, `*` any key. This is the manual of template variables.
CONTEXT: Mapping[str, str] = {
    "customer.first_name": "may be empty: ask `{% if customer.first_name %}`; what is no name (a link) comes empty",
    "customer.locale": "language of the customer, e.g. en, ko, pt-BR",
    "customer.country": "two letters, or none",
    "shop.name": "from include/theme.yml, like all of `shop`",
    "shop.url": "the shop's front page",
    "shop.postal_address": "stands in every footer",
    "shop.support_email": "where people write to",
    "shop.phone": "may be empty: ask `{% if shop.phone %}`",
    "shop.support_hours": "when somebody answers",
    "shop.returns_url": "the returns policy",
    "shop.privacy_url": "the privacy notice",
    "shop.loyalty_name": "what the loyalty club is called",
    "shop.loyalty_perks[]": "what members really get, one line each",
    "shop.news[].name": "what is new in the shop; the list may be empty",
    "shop.news[].url": "where it is",
    "order.number": "the shop's order number; `order` is none for a campaign without one",
    "order.placed_on": "date",
    "order.delivered_on": "date, or none",
    "item.name": "the main item of the order, or none",
    "item.sku": "the shop's article number",
    "item.url": "page of the item, or none",
    "item.image_url": "picture of the item, or none",
    "item.category": "category, or none",
    "item.quantity": "how many of it were ordered",
    "item.unit_price": "price of one, in the currency of the order",
    "items[].name": "all items of the order; may be empty",
    "items[].sku": "the shop's article number",
    "items[].url": "page of the item, or none",
    "items[].image_url": "picture of the item, or none",
    "items[].category": "category, or none",
    "items[].quantity": "how many of it were ordered",
    "items[].unit_price": "price of one, in the currency of the order",
    "coupon.code": "the customer's own code; `coupon` is none for a step without one",
    "coupon.percent": "whole number",
    "coupon.expires_on": "date, the last day on which it works",
    "referral.code": "the customer's own code for friends, for ever the same; `referral` is none without one",
    "links.unsubscribe": "page with one button",
    "links.preferences": "page on which people choose what they get",
    "links.score.*": "`links.score['1']` ... `links.score['5']`: answers the one question",
    "links.shop": "the shop",
    "campaign.id": "id of the campaign file",
    "campaign.name": "its name",
    "step.id": "id of the step",
    "why": "one sentence: why the customer gets this mail",
    "locale": "language this mail is written in",
    "subject": "in the mail itself: the finished subject",
    "preheader": "in the mail itself: the finished preview line",
}


class RenderError(PostludeError):
    """This one person cannot get this message; `reason` says why, and holds nothing about the person."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)


# ---------------------------------------------------------------- values

MAX_DEPTH, MAX_VALUES, MAX_TEXT = 6, 2000, 2000
_TEXT_PLAIN = frozenset({int, float, bool, Decimal, dt.date, dt.datetime, type(None)})
# controls, line and paragraph separators, surrogates, and the marks that turn the direction of what follows
_UNWANTED = re.compile(r"[\x00-\x08\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufeff\ufffe\uffff\ud800-\udfff]")
_LAYOUT = re.compile(r"[\t\n\v\f\r\u2028\u2029]")
_NO_NAME = re.compile(r"://|www\.|@|[<>{}\[\]\\|%$]|\d{3}", re.IGNORECASE)


def plain(value: Any, where: str = "context", depth: int = 0) -> Any:
    """A copy made of plain dict, list, str, int, float, Decimal, date, datetime, bool, None, each text on one line.

    Nothing else may reach a template: through the sandbox it could still call methods of a database row. Exact types,
    so that neither a Markup (which would not be escaped) nor a clever subclass of dict comes in. Raises RenderError.
    """
    kind = type(value)
    if kind is str:
        return line(value)
    if kind in _TEXT_PLAIN:
        return value
    if depth >= MAX_DEPTH:
        raise RenderError(f"{where} is nested deeper than {MAX_DEPTH} levels")
    if kind is dict:
        if len(value) > MAX_VALUES or any([type(key) is not str for key in value]):
            raise RenderError(f"{where} is no plain mapping of texts to values")
        return {
            key: inner if type(inner) in _TEXT_PLAIN else plain(inner, f"{where}.{key}", depth + 1)
            for key, inner in value.items()
        }
    if kind is list:
        if len(value) > MAX_VALUES:
            raise RenderError(f"{where} has more than {MAX_VALUES} entries")
        return [plain(inner, f"{where}[]", depth + 1) for inner in value]
    raise RenderError(f"{where} is a {kind.__name__}; only plain values reach a template")


def line(text: str) -> str:
    """`text` on one line, without control characters and at most 2,000 characters long."""
    if text.isprintable() and len(text) <= MAX_TEXT:  # nearly always
        return text
    if len(text) > MAX_TEXT:
        text = text[: MAX_TEXT - 1] + "…"
    if _LAYOUT.search(text):
        text = " ".join(text.split())
    return _UNWANTED.sub("", text) if _UNWANTED.search(text) else text


def first_name(text: Any) -> str:
    """A name to greet with, or "": people (and robots) type links, addresses and placeholders into name fields."""
    name = " ".join(line(text).split()) if isinstance(text, str) else ""
    return "" if len(name) > 40 or _NO_NAME.search(name) else name


def shop_of(theme: Theme) -> dict[str, Any]:
    """The theme's facts about the shop, as the template variable `shop`."""
    return dict(theme.shop.model_dump(mode="json"))


# ---------------------------------------------------------------- people to try a template on


def samples(template: str = "") -> dict[str, dict[str, Any]]:
    """Contexts of invented people, by name: the usual one, one without a first name, and awkward ones."""
    item = {
        "name": "Waxed canvas weekender bag",
        "sku": "BAG-114",
        "url": "https://shop.example/p/bag-114",
        "image_url": None,
        "category": "bags",
        "quantity": 1,
        "unit_price": Decimal("129.00"),
    }
    others = [
        {**item, "name": "Linen market tote", "sku": "BAG-120", "url": "https://shop.example/p/bag-120"},
        {**item, "name": "Leather luggage tag", "sku": "ACC-031", "url": "https://shop.example/p/acc-031"},
        {**item, "name": "Merino travel blanket", "sku": "HOM-208", "url": "https://shop.example/p/hom-208"},
    ]
    link = "https://mail.shop.example"
    ana: dict[str, Any] = {
        "customer": {"first_name": "Ana", "locale": "en", "country": "GB"},
        "order": {"number": "10482", "placed_on": dt.date(2026, 9, 14), "delivered_on": dt.date(2026, 9, 18)},
        "item": item,
        "items": others,
        "coupon": {"code": "K7RW2MXQ94", "percent": 15, "expires_on": dt.date(2026, 11, 2)},
        "referral": {"code": "H4XB7QWKM2"},
        "links": {
            "unsubscribe": f"{link}/u/sample",
            "preferences": f"{link}/p/sample",
            "score": {str(n): f"{link}/s/sample-{n}" for n in range(1, 6)},
            "shop": "https://shop.example/",
        },
        "campaign": {"id": template.split("/", 1)[0] or "sample", "name": "Sample"},
        "step": {"id": template.rpartition("/")[2] or "sample"},
        "why": "You get this mail because you bought from us and agreed to hear from us.",
    }

    def named(first: str, /, **item_too: Any) -> dict[str, Any]:
        return {**ana, "customer": {**ana["customer"], "first_name": first}, "item": {**item, **item_too}}

    return {
        "ana": ana,
        "no name": {**named("", url=None, image_url=None, category=None), "items": []},
        "picture": named("Ana", image_url="https://shop.example/i/bag-114.jpg"),
        "markup": named("<img src=x onerror=alert(1)>", name="Mug <b>\"blue\"</b> & 'co' {{7*7}}"),
        "header": named("Eve\r\nBcc: all@customers.example", name="Tea\r\nSubject: free\u2028money"),
        "right to left": named("נועה", name="תיק בד"),
        "emoji": named("Zoë 👩‍👩‍👧", name="Party hat 🎉"),
        "long": named("A" * 300, name="Very long product name " * 40),
    }
