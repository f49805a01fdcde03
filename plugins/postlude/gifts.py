"""Surprise gifts: a lot once a month within a budget, that anybody can draw again and get the same.

The order of the lot is a hash of seed, month and customer. From its beginning gifts are given out until the budget is used
up; what it costs and who was left out for which reason is stored. Each gift has a day of its own, on which it is looked
at once more (gift_draws: given, or withdrawn with the reason); the campaign starts from the event `surprise_gift`.
"""

from __future__ import annotations

import calendar
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import Any

from sqlalchemy import Connection, insert, table, text
from sqlalchemy import column as col

from postlude import db
from postlude.loyalty_rules import Choice, Gifts

STOPS = db.dumps(["recovery_open", "return_open", "ticket_open"])
_draws = table("gift_draws", *(col(name) for name in ("month", "customer_id", "place", "gift", "kind", "worth", "at")))


def draw(conn: Connection, rules: Gifts, now: datetime) -> dict[str, int]:
    """Draw this month's gifts if that was not done yet, and settle those whose day has come.

    Returns counts: drawn, given, withdrawn.
    """
    conn.execute(text("select pg_advisory_xact_lock(72060026)"))
    month = now.date().replace(day=1)
    done = conn.scalar(text("select exists (select from gift_months where month = :month)"), {"month": month})
    counts = {"drawn": 0 if done else _draw(conn, rules, now, month), "given": 0, "withdrawn": 0}
    due = list(
        conn.execute(
            text("select customer_id from gift_draws where state = 'drawn' and at <= :now"), {"now": now}
        ).scalars()
    )
    if due:
        _judge(conn, rules, now, due)
        for state in db.run(conn, "25_gifts_settle", now=now).scalars():
            counts[state] += 1
    return counts


def _draw(conn: Connection, rules: Gifts, now: datetime, month: date) -> int:
    _judge(conn, rules, now, None)
    count = text(
        "select coalesce(reason, '') as reason, count(*) as customers from gift_candidates group by 1 order by 1"
    )
    reasons = {row.reason: row.customers for row in conn.execute(count)}
    budget = Decimal(str(rules.budget))
    cheapest = min(Decimal(str(choice.worth)) for choice in rules.choices)
    people = db.run(conn, "25_gifts_order", seed=rules.seed, month=month, most=int(budget / cheapest)).all()
    last = calendar.monthrange(month.year, month.month)[1]
    rows: list[dict[str, Any]] = []
    spent = Decimal(0)
    for person in people:
        lot = bytes.fromhex(person.lot)
        choice = _choice(rules.choices, int.from_bytes(lot[:8], "big"))
        worth = Decimal(str(choice.worth))
        if spent + worth > budget:
            break  # the lot ends here: who comes later is not preferred for a cheaper gift
        spent += worth
        day = now.day + int.from_bytes(lot[8:12], "big") % (last - now.day + 1)
        at = max(datetime.combine(month.replace(day=day), time(), UTC), now)
        rows.append({"month": month, "customer_id": person.customer_id, "place": len(rows) + 1, "gift": choice.gift,
                     "kind": choice.gives, "worth": worth, "at": at})  # fmt: skip
    conn.execute(
        text("""insert into gift_months (month, seed, drawn_at, customers, eligible, left_out, budget, spent)
                values (:month, :seed, :now, :customers, :eligible, :left_out, :budget, :spent)"""),
        {
            "month": month, "seed": rules.seed, "now": now, "customers": sum(reasons.values()), "eligible": reasons.get("", 0),
            "left_out": db.dumps({reason: count for reason, count in reasons.items() if reason}), "budget": budget,
            "spent": spent,
        },
    )  # fmt: skip
    if rows:
        conn.execute(insert(_draws), rows)
    return len(rows)


def _judge(conn: Connection, rules: Gifts, now: datetime, people: list[int] | None) -> None:
    db.drop_temporary(conn, "table gift_candidates")
    db.run(
        conn, "25_gifts_judge", now=now, people=people, pause=rules.pause, not_discounted=rules.not_discounted, stops=STOPS
    )  # fmt: skip


def _choice(choices: tuple[Choice, ...], point: int) -> Choice:
    """The choice at this point of the line on which each has its weight."""
    at = point % sum(choice.weight for choice in choices)
    for choice in choices:
        at -= choice.weight
        if at < 0:
            return choice
    raise AssertionError("weights are positive")
