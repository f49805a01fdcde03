"""A gate, as the stages around it need it."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

from sqlalchemy import text

from postlude import (
    db,
    intake,
    quality,
)
from postlude.pipeline.customers import overtaken
from postlude.pipeline.orders import TAKEN_OVER, arrival
from postlude.pipeline.runs import Counts
from postlude.settings import settings
from postlude.sources import load_source


def check(gate: str, subject: str, now: datetime, run_id: str, origin: str = "manual") -> Counts:
    """Run a gate and build its Data Docs. Raises GateClosed with the failing expectations and counts."""
    minimum = None
    if gate == "features":
        with db.transaction() as conn:
            if overtaken(conn, now, origin):  # a run over the past left them as they are: nothing of it to check
                return {"left_as_they_are": 1}
    if gate == "orders":
        spec = load_source(Path(subject))
        subject, now = spec.id, arrival(now)
        with db.transaction() as conn:
            if intake.holder(conn, spec) != run_id:
                return dict(TAKEN_OVER)
            # a run that brought nothing may pass; a file without a single good row may not
            files = conn.scalar(text(f"select count(*) from {intake.staging(spec, 'files')}"))  # noqa: S608 - a checked id
        minimum = None if files else 0
    try:
        verdict = quality.check(
            db.server_url(),
            gate,
            subject=subject,
            now=now,
            run_id=run_id,
            docs=settings().home / "data_docs",
            minimum_rows=minimum,
        )
    except Exception:
        if gate == "orders":
            with db.transaction() as conn:
                if intake.holder(conn, spec) != run_id:  # taken from under the check
                    return dict(TAKEN_OVER)
        raise
    return {"evaluated": verdict.evaluated, "warnings": len(verdict.lines("warn"))}
