"""Happenings: what is worked out from the shop's facts and starts campaigns, as rows of external_events (docs/happenings.md).

One SQL file a kind (include/sql/25_happen_*.sql). Each event is named by the fact behind it, so a second run adds nothing,
and only what lies within REACH is written: no old news. Whether an event is over is not stored; `happening_over` looks.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection

from postlude import db
from postlude.loyalty_rules import Loyalty
from postlude.settings import settings

REACH = timedelta(days=30)


def kinds(rules: Loyalty | None) -> dict[str, dict[str, Any]]:
    """The statements, in their order, and what they take beside `now` and `reach`."""
    config = settings()
    always: dict[str, dict[str, Any]] = {
        "abandoned_checkout": {},
        "back_in_stock": {"per_piece": config.waiters_per_piece},
        "price_drop": {"percent": config.price_drop_percent},
        "replenishment_due": {"categories": list(config.consumables)},
        "next_order_expected": {},
        "delivery_delayed": {},
        "refund_late": {"days": config.refund_days},
        "packed_today": {"cut_off": config.cut_off},
        "high_value_bought": {"worth": config.high_value},
        "renewal_due": {"price": None, "url": None},
        "recovery_opened": {},
        "rated": {},
        "community_ready": {},
        "disengaged": {},
        "unseen": {},
    }
    if rules is None:
        return always
    tiers = db.dumps(rules.rows())
    if rules.club:
        always["renewal_due"] = {"price": rules.club.price, "url": rules.club.url}
    return always | {
        "threshold_crossed": {"percent": rules.join.percent, "tiers": tiers},
        "tier_changed": {"tiers": tiers},
        "points_expiring": {"worth": rules.worth},
        "surprise_gift": {},
    }


def note(conn: Connection, rules: Loyalty | None, now: datetime) -> dict[str, int]:
    """Write what has happened and is not written yet; events by statement. A second run at the same instant writes none."""
    found = kinds(rules).items()
    return {name: db.run(conn, f"25_happen_{name}", now=now, reach=REACH, **more).rowcount for name, more in found}
