"""The loyalty club: memberships, a ledger of points that is only ever added to, tiers from a rolling window.

`update` brings everything to `now`: memberships as told, renewals of the paid club, tiers, the points of every order of a
member (what it should have brought less what was booked, so a return, a cancellation or a correction is one entry more),
and what expires. Balances are kept by a trigger in the transaction of the entry, so they always equal the ledger.
"""

from __future__ import annotations

import uuid
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

from postlude import db
from postlude.errors import InputError
from postlude.loyalty_rules import Loyalty, load_loyalty

MOST = 1_000_000  # points in one entry by hand


def update(conn: Connection, rules: Loyalty, now: datetime, run_id: str) -> dict[str, int]:
    """Bring memberships, tiers and points to `now`. A second run changes nothing.

    Returns counts: joined, left, renewed, tiers_up, tiers_down, booked (entries for orders), expired (entries).
    """
    club = rules.club
    period, grace = (club.renew_every, club.grace) if club else (None, None)
    db.run(conn, "25_loyalty_lock")
    counts = {
        "renewed": db.run(conn, "25_loyalty_renew", now=now, period=period, grace=grace).rowcount,
        "left": db.run(conn, "25_loyalty_leave", now=now, grace=grace).rowcount,
        "joined": db.run(conn, "25_loyalty_join", now=now, period=period).rowcount,
    }
    tiers = db.run(
        conn, "25_loyalty_tiers", now=now, spent_in=rules.window, keep=rules.keep_tier, tiers=db.dumps(rules.rows()),
        club_tier=club.tier if club else None, run_id=run_id,
    ).one()  # fmt: skip
    counts |= {"tiers_up": tiers.up, "tiers_down": tiers.down}
    counts["booked"] = db.run(
        conn, "25_loyalty_book", now=now, earn_on=rules.earn.on, tiers=db.dumps(rules.rows()), life=rules.expire_after
    ).rowcount
    counts["expired"] = db.run(conn, "25_loyalty_expire", now=now).rowcount
    return counts


# ---------------------------------------------------------------- by hand, or by the shop's till


def join(conn: Connection, customer: int, now: datetime, by: str, kind: str = "free") -> bool:
    """Make somebody a member; False when they are one already. Raises InputError for a club that is not there."""
    _known(conn, customer)
    rules = load_loyalty()
    if rules is None or (kind == "paid" and rules.club is None):
        raise InputError(f"there is no {'paid club' if rules else 'club'} in include/loyalty.yml; add it first")
    period = rules.club.renew_every if kind == "paid" and rules.club else None
    return bool(
        conn.execute(
            text("""insert into loyalty_memberships (customer_id, kind, joined_at, known_at, how, renews_on)
                    values (:customer, :kind, :now, :now, :by,
                            cast(cast(cast(:now as timestamptz) as date) + cast(:period as interval) as date))
                    on conflict do nothing"""),
            {"customer": customer, "kind": kind, "now": now, "by": by, "period": period},
        ).rowcount
    )  # fmt: skip


def leave(conn: Connection, customer: int, now: datetime, why: str) -> bool:
    """End a membership; the points stay. False when there was none."""
    return bool(
        conn.execute(
            text("""update loyalty_memberships set left_at = :now, left_why = :why
                    where customer_id = :customer and left_at is null"""),
            {"customer": customer, "now": now, "why": why},
        ).rowcount
    )  # fmt: skip


def redeem(conn: Connection, customer: int, points: int, now: datetime, by: str, reason: str, ref: str) -> bool:
    """Spend points; False when this `ref` was redeemed before. Raises InputError when the balance is too small.

    The account stays locked until the transaction ends: of two redemptions at once the second sees what the first left.
    """
    if not 0 < points <= MOST:
        raise InputError(f"{points:,} points cannot be redeemed; give a number from 1 to {MOST:,}")
    balance = _balance(conn, customer)
    known = conn.scalar(text("select exists (select from loyalty_ledger where ref = :ref)"), {"ref": ref})
    if known:
        return False
    if balance < points:
        raise InputError(f"customer {customer} has {balance:,} points; {points:,} cannot be redeemed")
    return _enter(conn, customer, "redeemed", -points, now, None, reason, by, ref)


def adjust(
    conn: Connection,
    customer: int,
    points: int,
    now: datetime,
    by: str,
    reason: str,
    expires_at: datetime | None = None,
) -> int:
    """Give or take points by hand, with a reason; the balance afterwards. Raises InputError without one, or below zero."""
    if not reason.strip():
        raise InputError('points are not changed without a reason; say why with --reason "..."')
    if points == 0 or abs(points) > MOST:
        raise InputError(f"{points:,} points are no correction; give a number from -{MOST:,} to {MOST:,}, not 0")
    balance = _balance(conn, customer)
    if points < 0 and balance + points < 0:
        raise InputError(f"customer {customer} has {balance:,} points; taking {-points:,} would go below zero")
    rules = load_loyalty()
    if points > 0 and expires_at is None and rules and rules.expire_after:
        expires_at = now + rules.expire_after
    _enter(
        conn, customer, "adjusted", points, now, expires_at if points > 0 else None, reason, by, f"hand:{uuid.uuid4()}"
    )
    return balance + points


def _balance(conn: Connection, customer: int) -> int:
    _known(conn, customer)
    return int(db.run(conn, "25_loyalty_balance", customer=customer).scalar_one())


def _enter(
    conn: Connection, customer: int, kind: str, points: int, now: datetime, expires_at: datetime | None, reason: str, by: str,
    ref: str,
) -> bool:  # fmt: skip
    return bool(
        db.run(
            conn, "25_loyalty_enter", customer=customer, kind=kind, points=points, now=now, expires_at=expires_at,
            reason=reason, by=by, ref=ref,
        ).rowcount
    )  # fmt: skip


def _known(conn: Connection, customer: int) -> None:
    found = text("select merged_into from customers where customer_id = :id")
    row = conn.execute(found, {"id": customer}).first()
    if row is None:
        raise InputError(f"there is no customer {customer}; `postlude why` finds customers by their number")
    if row.merged_into is not None:
        raise InputError(f"customer {customer} is the same person as {row.merged_into}; use that number")


# ---------------------------------------------------------------- looking


def account(conn: Connection, customer: int, now: datetime, rules: Loyalty | None = None) -> dict[str, Any]:
    """Points, tier and membership of one customer, what goes next, and the next tier. Raises InputError for nobody."""
    _known(conn, customer)
    found = dict(db.run(conn, "25_loyalty_account", customer=customer, now=now).mappings().one())
    tiers = {tier.id: tier for tier in rules.tiers} if rules else {}
    tier = tiers.get(found["tier"])
    return found | {"tier_name": tier.name if tier else found["tier"], "perks": list(tier.perks) if tier else []}


def entries(conn: Connection, customer: int, most: int = 20) -> list[dict[str, Any]]:
    """The newest entries of the ledger, each with the balance after it."""
    return [dict(row) for row in db.run(conn, "25_loyalty_entries", customer=customer, most=most).mappings()]
