"""What a template may use: the variables with their meaning, and what a value may be."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from postlude.errors import PostludeError
from postlude.rendering.theme import Theme

_ITEM = {
    "sku": "the shop's article number",
    "url": "page of the item, or none",
    "image_url": "picture of the item, or none",
    "category": "category, or none",
    "quantity": "how many of it",
    "unit_price": "price of one, in the currency of the order",
    "amount": "quantity times price",
}
_SHIPMENT = {
    "of": "how many parcels there are in all",
    "state": "packed, shipped or delivered",
    "carrier": "name, or none",
    "tracking_number": "as the carrier writes it, or none",
    "tracking_url": "page of the carrier, or none",
    "shipped_on": "date, or none",
    "eta_on": "date on which it should arrive, or none",
    "delivered_on": "date, or none",
    "items[].name": "what is in it; may be empty when the shop does not say",
    "items[].quantity": "how many of it",
}

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
    "shop.guides.*": "by product category, its guide in pictures; ask with `|default('')`",
    "shop.faq_url": "questions and answers; may be empty",
    "shop.logo.url": "`shop.logo` is none for a shop that writes its name instead",
    "shop.logo.alt": "what stands there without pictures",
    "shop.logo.width": "pixels",
    "shop.logo.height": "pixels",
    "shop.social[].name": "where else the shop is; the list may be empty",
    "shop.social[].url": "its address there",
    "today": "date of the mail on the customer's clock",
    "order.number": "the shop's order number; `order` is none for a campaign without one",
    "order.state": "paid, packed, shipped, delivered, cancelled or returned",
    "order.placed_on": "date",
    "order.shipped_on": "date of the first parcel, or none",
    "order.promised_on": "date on which it should arrive, or none",
    "order.delivered_on": "date of the last parcel, or none",
    "order.currency": "three letters",
    "order.subtotal": "amount of the items",
    "order.shipping": "amount, 0 when it was free, or none",
    "order.discount": "amount taken off, or none",
    "order.tax": "amount included, or none",
    "order.total": "amount paid",
    "order.payment": "masked, e.g. Visa ending in 4242; or none",
    "order.address[]": "lines of the address it goes to; may be empty",
    "order.url": "the order's own page, or none",
    "item.name": "the main item of the order, or none",
    **{f"item.{key}": told for key, told in _ITEM.items()},
    "items[].name": "all items of the order; may be empty",
    **{f"items[].{key}": told for key, told in _ITEM.items()},
    "shipment.number": "which parcel this mail is about (1, 2, ...); `shipment` is none for a mail about none",
    **{f"shipment.{key}": told for key, told in _SHIPMENT.items()},
    "shipments[].number": "all parcels of the order, in order; may be empty",
    **{f"shipments[].{key}": told for key, told in _SHIPMENT.items()},
    "refund.state": "requested, received, refunded or exchanged; `refund` is none without a return",
    "refund.amount": "amount, or none",
    "refund.currency": "three letters",
    "refund.due_on": "date by which the money is back, or none",
    "refund.label_url": "the label to send it back with, or none",
    "bill.amount": "what is to be paid; `bill` is none without one",
    "bill.currency": "three letters",
    "bill.due_on": "date",
    "bill.pay_url": "secure page to pay on",
    "coupon.code": "the customer's own code; `coupon` is none for a step without one",
    "coupon.percent": "whole number",
    "coupon.expires_on": "date, the last day on which it works",
    "referral.code": "the customer's own code for friends, for ever the same; `referral` is none without one",
    "referral.url": "link that brings the code along, or none",
    "recommendations[].name": "products for this customer, in stock, never bought or returned; may be empty",
    "recommendations[].sku": "the shop's article number",
    "recommendations[].url": "page of the product",
    "recommendations[].image_url": "picture, or none",
    "recommendations[].price": "as the catalogue says at hand-over",
    "recommendations[].currency": "three letters",
    "recommendations[].reason": "similar, complementary, bought_together, bestseller or again",
    "recommendations[].because": "name of the item it rests on, or none",
    "loyalty.points": "balance; `loyalty` is none for somebody who has not joined",
    "loyalty.tier": "name of the tier",
    "loyalty.next_tier": "name of the next one, or none",
    "loyalty.points_to_next": "points it takes, or none",
    "loyalty.expiring": "points that expire next, or none",
    "loyalty.expires_on": "date on which they do, or none",
    "loyalty.renews_on": "date on which the paid club renews, or none",
    "loyalty.perks[]": "what the tier gives, one line each; may be empty",
    "free_shipping.missing": "amount; `free_shipping` is none where there is no threshold, or it is reached",
    "free_shipping.threshold": "amount",
    "free_shipping.currency": "three letters",
    "cart.items[].name": "what was left at the check-out; `cart` is none without one",
    **{f"cart.items[].{key}": told for key, told in _ITEM.items()},
    "cart.amount": "amount",
    "cart.currency": "three letters",
    "cart.url": "link that opens the cart again",
    "product.name": "the product the mail is about (back in stock, price drop); `product` is none without one",
    "product.sku": "the shop's article number",
    "product.url": "its page",
    "product.image_url": "picture, or none",
    "product.price": "as the catalogue says at hand-over",
    "product.old_price": "before the drop, or none",
    "product.currency": "three letters",
    "rating.score": "newest answer about the order or item, 0 to 10 or 1 to 5; `rating` is none without one",
    "contact.name": "the person who looks after it; `contact` is none without one",
    "contact.email": "address, or none",
    "contact.phone": "number, or none",
    "notice.title": "of a service notice; `notice` is none without one",
    "notice.text": "what changed",
    "notice.valid_until": "date",
    "event.kind": "what began the passage of an `external` trigger",
    "event.on": "its date",
    "event.*": "facts that came with the event of an `external` trigger; `event` is none without one",
    "links.unsubscribe": "page with one button",
    "links.preferences": "page on which people choose what they get",
    "links.score.*": "`links.score['1']` ... `links.score['5']`: how the item is, in one click",
    "links.delivery.*": "`links.delivery['1']` ... `links.delivery['5']`: how the delivery was",
    "links.nps.*": "`links.nps['0']` ... `links.nps['10']`: would they recommend the shop",
    "links.page": "the customer's own page, or none",
    "links.booking": "where a call is booked, or none",
    "links.shop": "the shop",
    "campaign.id": "id of the campaign file",
    "campaign.name": "its name",
    "campaign.marketing": "whether the mail advertises, and so shows how to end such mail",
    "step.id": "id of the step",
    "why": "one sentence: why the customer gets this mail",
    "locale": "language this mail is written in",
    "direction": "ltr or rtl, of that language",
    "subject": "in the mail itself: the finished subject",
    "preheader": "in the mail itself: the finished preview line",
}

# what a mail has when nobody gives it: templates ask `{% if shipments %}` without asking whether it is there
EMPTY: Mapping[str, Any] = {
    **dict.fromkeys((
        "order", "item", "shipment", "refund", "bill", "coupon", "referral", "loyalty", "free_shipping", "cart", "product",
        "rating", "contact", "notice", "event", "today",
    )),
    "items": [], "shipments": [], "recommendations": [],
}  # fmt: skip


LINKS = dict.fromkeys(("page", "booking"))  # links that not every mail has


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
        found: dict[str, Any] = {}
        if len(value) > MAX_VALUES:
            raise RenderError(f"{where} is no plain mapping of texts to values")
        for key, inner in value.items():
            kind = type(inner)
            if kind is str:
                found[key] = inner if len(inner) <= MAX_TEXT and inner.isprintable() else line(inner)
            else:
                found[key] = inner if kind in _TEXT_PLAIN else plain(inner, f"{where}.{key}", depth + 1)
        if any([type(key) is not str for key in found]):
            raise RenderError(f"{where} is no plain mapping of texts to values")
        return found
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
    if name.isalpha() and len(name) <= 40:  # nearly always
        return name
    return "" if len(name) > 40 or _NO_NAME.search(name) else name


def shop_of(theme: Theme, language: str = "") -> dict[str, Any]:
    """The theme's facts about the shop, as the template variable `shop`; in this language where the theme has it."""
    facts = dict(theme.shop.model_dump(mode="json"))
    said = theme.in_language.get(language) or theme.in_language.get(language.partition("-")[0])
    return facts | (said.model_dump(mode="json", exclude_none=True) if said else {})
