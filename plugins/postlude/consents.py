"""How long a consent lasts where the person lives (include/legal.yml), and the notices that keep it; docs/law.md.

The rule is consent_ended() in include/sql/schema/rules/10_reach.sql: read at planning, at the last look and by `postlude why`.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, Row, text

from postlude import db
from postlude.errors import InputError
from postlude.legal import Law, load_law


def remember_terms(conn: Connection, law: Law | None = None) -> None:
    """Bring what the database knows of the law to what the file says. Raises InputError with the faults of the file."""
    terms = [
        {
            "country": country, "law": rule.law, "purchase": rule.implied_by_purchase, "inquiry": rule.implied_by_inquiry,
            "notice": rule.notice_every,
        }
        for country, rule in (law or load_law()).countries.items()
        if rule.ends_consents
    ]  # fmt: skip
    told = db.dumps(terms)
    if not db.run(conn, "33_terms_known", terms=told).scalar_one():
        # of campaigns that learn it at once, the others wait for the first and find nothing to do; else nobody waits for anybody
        conn.execute(text("select pg_advisory_xact_lock(72060033)"))
        db.run(conn, "33_consent_terms", terms=told)


def due(
    conn: Connection, now: datetime, within: timedelta, channel: str = "email", topic: str = "marketing"
) -> list[Row[Any]]:
    """Who must be told that their consent stands, or marketing to them stops within this time; the first due first."""
    return list(db.run(conn, "33_notices_due", channel=channel, topic=topic, by=now + within, now=now))


def told(
    conn: Connection, customers: Sequence[int], told_at: datetime, by: str, now: datetime, channel: str = "email"
) -> int:
    """Record that these people were told; how many of them were not recorded for that instant yet.

    Raises InputError when `told_at` lies ahead of `now`, `by` is empty, or somebody is not a customer; nothing is stored then.
    """
    if told_at > now:
        raise InputError(
            f"the notice of {told_at:%Y-%m-%d %H:%M} UTC has not been given yet; write when people were told"
        )
    if not by.strip():
        raise InputError("a notice needs the name of whoever vouches for it")
    known = set(db.run(conn, "33_known_customers", customers=list(customers)).scalars())
    if strangers := sorted(set(customers) - known):
        raise InputError(f"there is no customer {', '.join(map(str, strangers[:5]))}; nothing was recorded")
    return len(
        db.run(
            conn, "33_record_notices", channel=channel, customers=list(customers), told_at=told_at, by_whom=by.strip(), now=now
        ).all()
    )  # fmt: skip
