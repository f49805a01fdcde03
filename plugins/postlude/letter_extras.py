"""What only some letters need, and what costs something to find: recommendations, and the standing in the loyalty club.

Looked up for a claimed batch at once, and only for templates that speak of it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from decimal import ROUND_CEILING, Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, Row

from postlude import db, yamlfile
from postlude.loyalty_rules import LOYALTY, Loyalty
from postlude.settings import settings

NAMES = ("recommendations", "loyalty")
MOST = 6


def of(
    conn: Connection, letters: Sequence[Row[Any]], speaks: Mapping[str, Collection[str]], now: datetime
) -> dict[UUID, dict[str, Any]]:
    """The variables `recommendations` (a list, empty without any) and `loyalty` (None for no member) of messages that use them.

    speaks: template -> names of the variables it uses.
    """
    found: dict[UUID, dict[str, Any]] = {}
    wanted = {name: [letter for letter in letters if name in speaks.get(letter.template, ())] for name in NAMES}
    if people := wanted["recommendations"]:
        rows = db.run(conn, "24_recommend_people", ids=[letter.message_id for letter in people], most=MOST, now=now)
        for row in rows:
            found.setdefault(row.message_id, {})["recommendations"] = row.recommendations
    rules = _rules() if wanted["loyalty"] else None
    if rules:
        zones = {letter.message_id: letter.zone for letter in wanted["loyalty"]}
        for row in db.run(conn, "25_loyalty_people", ids=list(zones), now=now):
            found.setdefault(row.message_id, {})["loyalty"] = _standing(row, rules, zones[row.message_id])
    return found


def _rules() -> Loyalty | None:
    path = settings().include / LOYALTY
    return yamlfile.load_unchanged(path, Loyalty) if path.is_file() else None


def _standing(row: Row[Any], rules: Loyalty, zone: str) -> dict[str, Any]:
    at = next((n for n, tier in enumerate(rules.tiers) if tier.id == row.tier), 0)
    tier, above = rules.tiers[at], rules.tiers[at + 1] if at + 1 < len(rules.tiers) else None
    rate = Decimal(str(tier.points_per_unit or rules.earn.points_per_unit))
    missing = max(Decimal(str(above.spend)) - row.spent, Decimal(0)) if above else None
    perks = [*tier.perks, *((rules.club.name,) if rules.club and row.member == "paid" else ())]
    return {
        "points": row.points,
        "tier": tier.name,
        "member": row.member,
        "next_tier": above.name if above else None,
        "points_to_next": int((missing * rate).to_integral_value(ROUND_CEILING)) if missing is not None else None,
        "missing": missing,
        "expiring": row.expiring,
        "expires_on": row.expires_at.astimezone(ZoneInfo(zone)).date() if row.expires_at else None,
        "renews_on": row.renews_on,
        "perks": perks,
    }
