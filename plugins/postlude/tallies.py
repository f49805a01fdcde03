"""Counts per campaign, step, state and day for the pages, which must not count ten million messages for each reader.

What is over does not change: only the days since the last count, and what is still open, are counted again. A dead letter
that somebody retries is over and is not; so all is counted from scratch once a day.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, text

from postlude import db

EVERYTHING = datetime(1970, 1, 1, tzinfo=UTC)
ANEW = timedelta(hours=20)  # all of it, after so long


def refresh(conn: Connection, now: datetime, full: bool = False) -> dict[str, int]:
    """Bring the counts to `now`. Returns {"tallies": rows written}; 0 when somebody else is counting already."""
    if not conn.scalar(text("select pg_try_advisory_xact_lock(72060032)")):
        return {"tallies": 0}
    state = conn.execute(text("select as_of, full_at from tally_state")).one_or_none()
    # a clock that went back (a rehearsal) may have written into days that were counted
    full = full or state is None or now < state.as_of or now - state.full_at > ANEW
    midnight = now if state is None else state.as_of
    since = EVERYTHING if full else midnight.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=1)
    db.run(conn, "69_forget_tallies", since=since)
    written = db.run(conn, "69_count_tallies", since=since).rowcount
    db.run(conn, "69_mark_tallies", now=now, everything=full)
    return {"tallies": written}


def counted_at(conn: Connection) -> datetime | None:
    """The instant the counts speak of; None: nothing was counted yet."""
    found: Any = conn.scalar(text("select as_of from tally_state"))
    return found
