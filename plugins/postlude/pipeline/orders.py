"""Orders in: extract, check, load, replay."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import Connection, text

from postlude import (
    db,
    identities,
    intake,
    quarantine,
)
from postlude.errors import InputError, Unavailable
from postlude.pipeline.runs import Counts, Progress, recorded
from postlude.settings import settings
from postlude.sources import Source, load_source, reader

log = logging.getLogger(__name__)


def list_sources(only: str | None = None) -> list[str]:
    """Paths of the source files to work on: all scheduled ones that have something to deliver, or the one called `only`.

    Raises InputError when there is no source of that name.
    """
    paths = sorted((settings().include / "sources").glob("[!.]*.yml"))
    if only:
        chosen = [str(path) for path in paths if path.stem == Path(only).stem]
        if not chosen:
            raise InputError(
                f'there is no source "{only}"; there are {", ".join(path.stem for path in paths) or "none"}'
            )
        return chosen
    found = []
    for path in paths:
        source = load_source(path)
        if not source.scheduled:
            continue
        if _delivers(source):
            found.append(str(path))
        else:
            log.warning("source %s has nothing to deliver: left out", source.id)
    return found


def _delivers(source: Source) -> bool:
    try:
        return any(reader(source.kind).deliveries(source, name) for name in source.entities)
    except InputError:
        return False


# another run has staged, or loaded, all that this one would have: it checks and loads it
TAKEN_OVER = {"taken_over": 1}


def extract(source: str, now: datetime, run_id: str, origin: str, progress: Progress | None = None) -> Counts:
    """Bring new files of one source into staging tables. Raises InputError when a file or its mapping is at fault."""
    spec = load_source(Path(source))
    with recorded("extract", spec.id, now, run_id, origin) as counts, db.transaction() as conn:
        counts.update(intake.extract(conn, spec, arrival(now), run_id, progress))
        intake.claim(conn, spec, run_id)
    return counts


def load(source: str, now: datetime, run_id: str, origin: str) -> Counts:
    """Merge what was staged; refused rows go to the quarantine. Raises GateClosed when too many are refused.

    Only what this run staged, and has checked: a run that overlaps with it stages all of it anew, and loads that itself. Raises
    Unavailable until it has, since what follows must not see half a day.
    """
    spec = load_source(Path(source))
    with recorded("load", spec.id, now, run_id, origin) as counts, db.transaction() as conn:
        if intake.holder(conn, spec) not in (run_id, None) and _loaded_by_another(conn, spec.id, run_id):
            counts.update(TAKEN_OVER)
            return counts
        counts.update(intake.load(conn, spec, arrival(now), run_id))
        counts["same_person"] = identities.apply(conn, identities.load_rules(), now)["merged"]
        counts["released"] += quarantine.adopt(conn, spec, arrival(now), run_id).get("released", 0)
    return counts


def replay(
    source: str, ids: Sequence[int], now: datetime, run_id: str, origin: str,
    *, corrections: Mapping[str, str] | None = None, through_mapping: bool = False, progress: Progress | None = None,
) -> Counts:  # fmt: skip
    """Try rows of the quarantine again (see `quarantine`). source: a source file, or the name of one in include/sources."""
    spec = load_source(Path(source) if Path(source).is_file() else Path(list_sources(source)[0]))
    with recorded("replay", spec.id, now, run_id, origin) as counts, db.transaction() as conn:
        if through_mapping:
            counts.update(quarantine.reread(conn, spec, ids, now, run_id, progress))
        else:
            counts.update(quarantine.replay(conn, spec, ids, now, run_id, corrections=corrections, progress=progress))
    return counts


def _loaded_by_another(conn: Connection, source: str, run_id: str) -> bool:
    """Whether another run has loaded what it staged after this one, and so all of this one's. Raises Unavailable: not yet."""
    staged = conn.execute(
        text("select finished_at from runs where run_id = :id"), {"id": f"{run_id}/extract/{source}"}
    ).scalar()
    if staged is None:
        return False
    loaded = conn.scalar(
        text("""select exists (select from runs where stage = 'load' and subject = :source and outcome = 'done'
                               and finished_at > :staged and counts ->> 'taken_over' is null)"""),
        {"source": source, "staged": staged},
    )
    if not loaded:
        raise Unavailable(
            f"{source}: a run that overlaps with this one has read its delivery, and has not loaded it yet"
        )
    return True


def arrival(now: datetime) -> datetime:
    """When a delivery is looked at: now, also for a run as of the past. What lies after that run's clock is real, not "in the
    future"; every stage after the load reads as of its own clock and does not see it."""
    return max(now, datetime.now(UTC))
