"""A row in `runs` for each stage that runs, and what stages give back."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from sqlalchemy import text

from postlude import (
    db,
)
from postlude.errors import GateClosed, InputError

Counts = dict[str, Any]
Progress = Callable[..., None]


@contextmanager
def recorded(stage: str, subject: str, now: datetime, run_id: str, origin: str) -> Iterator[Counts]:
    """A row in `runs` for this stage: started, and how it ended. Written in transactions of its own, so a failure stays."""
    key = {"id": f"{run_id}/{stage}{'/' + subject if subject else ''}"}
    with db.transaction() as conn:
        conn.execute(
            text("""insert into runs (run_id, stage, subject, as_of, origin, started_at)
                    values (:id, :stage, :subject, :now, :origin, clock_timestamp())
                    on conflict (run_id) do update set started_at = clock_timestamp(), finished_at = null, outcome = null"""),
            key | {"stage": stage, "subject": subject, "now": now, "origin": origin},
        )
    counts: Counts = {}
    outcome = "failed"
    try:
        yield counts
        outcome = "done"
    except (InputError, GateClosed):
        outcome = "stopped"
        raise
    finally:
        with db.transaction() as conn:
            conn.execute(
                text("""update runs set finished_at = clock_timestamp(), outcome = :outcome, counts = :counts
                        where run_id = :id"""),
                key | {"outcome": outcome, "counts": db.dumps(counts)},
            )
