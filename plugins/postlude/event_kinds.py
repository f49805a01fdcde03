"""What events tell (docs/happenings.md): every kind with all its keys and values to try a template on.

A key a shop did not tell is None in the letter, so a template may ask `{% if event.options %}`.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

_DAY, _LATER = dt.date(2026, 10, 18), dt.date(2026, 11, 2)
_PRODUCT: dict[str, Any] = {
    "sku": "MUG-007", "name": "Oak travel mug", "url": "https://shop.example/p/mug-007", "image_url": None, "category": "home",
    "price": 18, "currency": "EUR",
}  # fmt: skip
_RATED: dict[str, Any] = {
    "score": 5, "scale": 5, "sku": "MUG-007", "name": "Oak travel mug", "url": "https://shop.example/p/mug-007", "order_number": "10482",
}  # fmt: skip
_TIER: dict[str, Any] = {
    "tier": "gold", "tier_name": "Gold", "was": "silver", "perks": ["Free shipping", "60 days for returns"], "points": 1240,
    "next_tier": None, "next_at": None, "missing": None,
}  # fmt: skip

EVENTS: Mapping[str, Mapping[str, Any]] = {
    "abandoned_checkout": {"items": [], "amount": 98, "currency": "EUR", "url": "https://shop.example/cart/abc"},
    "back_in_stock": {**_PRODUCT, "waiting_since": _DAY},
    "price_drop": {**_PRODUCT, "was": 24, "percent": 25, "waiting_since": _DAY},
    "replenishment_due": {**_PRODUCT, "gap_days": 32, "gap_of": "own", "last_bought_on": _DAY, "expected_on": _LATER},
    "next_order_expected": {"expected_on": _LATER, "gap_days": 40, "gap_of": "own"},
    "delivery_delayed": {
        "order_number": "10482", "promised_on": _DAY, "eta": _LATER, "days_late": 2, "cause": None, "carrier": "DHL", "tracking_url": None,
    },
    "refund_late": {"order_number": "10482", "return": "R1", "sku": "MUG-007", "received_on": _DAY, "due_on": _DAY, "days_late": 3},
    "packed_today": {"order_number": "10482", "packs_on": _DAY},
    "high_value_bought": {
        "order_number": "10482", "sku": "ELE-003", "name": "Espresso machine", "url": "https://shop.example/p/ele-003", "price": 420,
    },
    "renewal_due": {
        "what": "club", "renews_on": _LATER, "amount": 29, "currency": "EUR", "url": "https://shop.example/club",
    },
    "threshold_crossed": {
        "orders": 5, "amount": 600, "currency": "EUR", "tier": "silver", "tier_name": "Silver", "percent": 10,
    },
    "tier_up": _TIER,
    "tier_down": _TIER,
    "points_expiring": {
        "points": 150, "expires_on": _LATER, "expires_at": "2026-11-02T00:00:00Z", "balance": 1240, "worth": 7.5, "currency": "EUR",
    },
    "surprise_gift": {"gift": "A beeswax candle", "gives": "gift", "worth": 8, "currency": "EUR", "month": "2026-10"},
    "recovery_opened": {
        "recovery": 12, "cause": "late", "score": None, "owner": "Mara Lind", "owner_email": "mara@shop.example", "make_good": True,
        "order_number": "10482",
    },
    "promoter": _RATED,
    "detractor": {**_RATED, "score": 2},
    "community_ready": {"why": "second_order"},
    "disengaged": {"last_sign_on": dt.date(2026, 5, 20)},
    "unseen": {"last_seen_on": dt.date(2026, 8, 20)},
    "checkout_started": {"cart": "c1", "items": [], "amount": 98, "url": "https://shop.example/cart/abc"},
    "product_watched": {"sku": "MUG-007", "wants": "back_in_stock"},
    "frustration": {"signal": "error", "page": "/checkout"},
    "payment_failed": {
        "method": "card",
        "invoice": "I-77", "amount": 9.9, "currency": "EUR", "due_on": _LATER, "url": "https://shop.example/pay/10482",
    },
    "payment_succeeded": {"invoice": "I-77"},
    "damaged": {"order_number": "10482", "sku": "MUG-007"},
    "carrier_exception": {"order_number": "10482", "cause": "weather"},
    "guest_order": {"order_number": "10482"},
    "visited": {"page": "/me"},
    "lead_created": {"interest": "bags", "url": "https://shop.example/bags"},
    "trial_started": {"plan": "pro", "ends_on": _LATER},
    "poll_opened": {
        "poll": "p1", "question": "Which colour should come next?", "options": ["Moss", "Clay", "Ink"], "url": "https://shop.example/poll",
        "valid_until": _LATER,
    },
    "service_notice": {
        "order_number": "10482", "title": "Our returns now take 60 days", "text": "You asked for more time.", "valid_until": _LATER,
    },
}  # fmt: skip


def sample() -> dict[str, Any]:
    """One event that tells everything any kind tells, to try a template on whose kind is not known."""
    everything: dict[str, Any] = {"kind": "sample", "on": _DAY}
    for told in EVENTS.values():
        everything |= {key: value for key, value in told.items() if value is not None or key not in everything}
    return everything
