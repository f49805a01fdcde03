"""What customers are: features, segments, loyalty, happenings, recommendations."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, text

from postlude import (
    audience,
    db,
    gifts,
    happenings,
    loyalty,
    recovery,
)
from postlude import recommend as recommendations
from postlude.loyalty_rules import load_loyalty, load_recovery
from postlude.pipeline.runs import Counts, recorded
from postlude.settings import settings


def derive_features(now: datetime, run_id: str, origin: str, full: bool = False) -> Counts:
    """Features of all customers as of `now`; full: from scratch, whatever is there.

    A run over the past counts only: it must not turn the present back.
    """
    with recorded("derive_features", "", now, run_id, origin) as counts, db.transaction() as conn:
        counts.update(audience.derive_features(conn, now, run_id, not overtaken(conn, now, origin), full))
    return counts


def overtaken(conn: Connection, now: datetime, origin: str) -> bool:
    """Is this a run over the past, or a slot that a newer run has overtaken? A person who asks for the past gets it."""
    if origin in ("cli", "test", "manual"):
        return False
    newest = conn.execute(text("select as_of from feature_state")).scalar()
    return origin == "backfill" or (newest is not None and newest > now)


def update_segments(now: datetime, run_id: str, origin: str) -> Counts:
    """Who entered and left each segment. A backfill leaves the memberships as they are."""
    segments = audience.load_segments(settings().include / "segments")
    with recorded("update_segments", "", now, run_id, origin) as counts, db.transaction() as conn:
        if overtaken(conn, now, origin):
            counts.update({"segments": len(segments), "left_as_they_are": 1})
        else:
            counts.update(audience.update_segments(conn, segments, now, run_id))
    return counts


def keep_loyalty(now: datetime, run_id: str, origin: str) -> Counts:
    """Memberships, tiers and points as of `now`. Without include/loyalty.yml there is no club and nothing to do."""
    rules = load_loyalty()
    with recorded("keep_loyalty", "", now, run_id, origin) as counts, db.transaction() as conn:
        if rules is None:
            counts["no_club"] = 1
        elif overtaken(conn, now, origin):
            counts["left_as_they_are"] = 1
        else:
            counts.update(loyalty.update(conn, rules, now, run_id))
    return counts


def note_happenings(now: datetime, run_id: str, origin: str) -> Counts:
    """Cases of service recovery, the draw of gifts, and every event that starts a campaign, as of `now`."""
    with recorded("note_happenings", "", now, run_id, origin) as counts, db.transaction() as conn:
        if overtaken(conn, now, origin):
            counts["left_as_they_are"] = 1
        else:
            counts.update(happen(conn, now))
    return counts


def happen(conn: Connection, now: datetime) -> Counts:
    """What note_happenings does, in a transaction of the caller's: the time machine lives it on a copy."""
    rules, cases = load_loyalty(), load_recovery()
    counts: Counts = {}
    db.walk(conn)
    if cases:
        counts.update({f"recovery_{key}": count for key, count in recovery.update(conn, cases, now).items()})
    if rules and rules.gifts:
        counts.update({f"gifts_{key}": count for key, count in gifts.draw(conn, rules.gifts, now).items()})
    return counts | happenings.note(conn, rules, now)


def recommend(now: datetime, run_id: str, origin: str, full: bool = False) -> Counts:
    """What is bought together, and what is recommended for it, as of `now`. A backfill leaves it as it is."""
    with recorded("recommend", "", now, run_id, origin) as counts, db.transaction() as conn:
        newest = conn.execute(text("select as_of from recommend_state")).scalar()
        if origin not in ("cli", "test", "manual") and (origin == "backfill" or (newest is not None and newest > now)):
            counts["left_as_it_is"] = 1
        else:
            counts.update(recommendations.count(conn, now, run_id, full))
    return counts
