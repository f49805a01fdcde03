"""Service recovery: what went wrong for a customer is a case with a named owner, and while it is open no promotion goes.

A case is opened by a bad answer, a parcel far too late, damage, or a refund that is late (include/recovery.yml says where
that begins). It is resolved by a good answer of the customer, or by its owner with the score the customer gave.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, text

from postlude import db
from postlude.errors import InputError
from postlude.loyalty_rules import Recovery, load_recovery
from postlude.settings import settings

REACH = timedelta(days=30)  # what lies further back opens no case


def update(conn: Connection, rules: Recovery, now: datetime) -> dict[str, int]:
    """Open what went wrong, resolve what was put right. A second run changes nothing. Returns counts: opened, resolved."""
    conn.execute(text("select pg_advisory_xact_lock(72060027)"))
    resolved = db.run(conn, "25_recovery_resolve", now=now, good=rules.good_score).rowcount
    opened = db.run(
        conn, "25_recovery_open", now=now, reach=REACH, low=rules.low_score, days_late=rules.days_late,
        refund_days=settings().refund_days, most=rules.make_good_per_year, owners=db.dumps(rules.owner_rows()),
    ).rowcount  # fmt: skip
    return {"opened": opened, "resolved": resolved}


def cases(conn: Connection, everything: bool = False, customer: int | None = None) -> list[dict[str, Any]]:
    """Open cases, the oldest first; everything: also those that were resolved."""
    return [dict(row) for row in db.run(conn, "25_recovery_list", everything=everything, customer=customer).mappings()]


def resolve(conn: Connection, recovery_id: int, now: datetime, by: str, *, score: int | None, why: str) -> None:
    """Resolve a case by hand: with the good score that the customer gave (of five), or after `close_after` without one.

    Raises InputError when there is no such open case, the score is not good, or it is too early to close it unanswered.
    """
    rules = load_recovery()
    case = conn.execute(
        text("select opened_at, resolved_at, owner from recoveries where recovery_id = :id for update"),
        {"id": recovery_id},
    ).first()
    if case is None or case.resolved_at is not None:
        what = "was resolved already" if case else "does not exist"
        raise InputError(f"the case {recovery_id} {what}; `postlude recovery list` shows the open ones")
    if not by.strip() or not why.strip():
        raise InputError("say who resolves it and what was done: --by NAME --why ...")
    if score is None:
        earliest = case.opened_at + (rules.close_after if rules else timedelta(0))
        if now < earliest:
            raise InputError(
                f"without the customer's answer the case {recovery_id} can be closed from {earliest:%Y-%m-%d} on; "
                f"until then {case.owner} asks, and gives --score"
            )
    elif rules and score < rules.good_score:
        raise InputError(
            f"a score of {score} does not put it right; promotions stay off until {rules.good_score} or more of 5"
        )
    what = f"score {score} of 5: {why}" if score is not None else f"closed unanswered: {why}"
    conn.execute(
        text("update recoveries set resolved_at = :now, resolved_by = :by, resolution = :what where recovery_id = :id"),
        {"id": recovery_id, "now": now, "by": by, "what": what},
    )
