"""The freshness gate: is each feed as new and as full as it usually is at this time of the week?

"Has not ordered" is true of everybody once the orders stop coming in. So whatever rests on absence asks here first, at planning
and again at hand-over, and fails closed: a feed that cannot be judged is stale. The rule itself is `feed_verdicts` in
include/sql/schema/rules/70_feeds.sql, told in docs/gates.md.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass
from datetime import date, datetime, timedelta
from itertools import groupby
from typing import Any

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from postlude import db
from postlude.settings import settings

log = logging.getLogger(__name__)

GATE = "freshness"
ENTITIES = ("orders", "reviews", "returns")
STOPS_WHEN = (
    "a campaign rests on what has *not* happened, and a feed it depends on is later or thinner than its own weekdays of four "
    "weeks; only that shop's customers are held, and the run is red"
)


@dataclass(frozen=True)
class Feed:
    """One feed of one source as judged at one instant. `reason` None: it is fresh."""

    source_id: str
    entity: str
    scheduled: bool
    newest: datetime | None
    loaded_at: datetime | None
    lag: timedelta | None
    lag_limit: timedelta | None
    usual_lag: timedelta | None
    day: date | None  # the last whole day, or the thin one of the last three
    found: int | None
    usual: float | None  # median of that weekday; None: no three weeks of history
    reason: str | None

    @property
    def name(self) -> str:
        return f"{self.source_id}/{self.entity}"

    def __str__(self) -> str:
        told = f"{self.entity} of {self.source_id}: {self.reason or 'fresh'}"
        if self.newest is None:
            return f"{told} (nothing was ever accepted)"
        if self.reason and self.reason.startswith("too_few"):
            return f"{told} ({self.found or 0:,} on {self.day}, usual are {self.usual or 0:,.0f})"
        return f"{told} (newest {self.newest:%Y-%m-%d %H:%M} UTC, {_hours(self.lag)} ago, at most {_hours(self.lag_limit)})"


def _hours(span: timedelta | None) -> str:
    return "?" if span is None else f"{span.total_seconds() / 3600:,.0f} h"


def verdicts(conn: Connection, now: datetime) -> list[Feed]:
    """Every feed of every source as of `now`, by source and entity."""
    config = settings()
    rows = db.run(conn, "30_feed_verdicts", now=now, share=config.feed_share, least=config.feed_least)
    return [Feed(**row) for row in rows.mappings()]


def stale_feeds(conn: Connection, now: datetime) -> list[str]:
    """`source/entity` of every stale feed. When they cannot be judged, all of them: nothing that rests on absence goes out."""
    limit = text("select current_setting('statement_timeout'), set_config('statement_timeout', :limit, true)")
    try:
        with conn.begin_nested():
            before = conn.scalar(limit, {"limit": "30s"})
            found = [feed.name for feed in verdicts(conn, now) if feed.reason]
            conn.execute(limit, {"limit": before})
            return found
    except DBAPIError as error:
        if error.connection_invalidated:
            raise
        log.error("the feeds could not be judged (%s): every one counts as stale", type(error.orig).__name__)
        sources = conn.execute(text("select source_id from sources order by 1")).scalars()
        return [f"{source}/{entity}" for source in sources for entity in ENTITIES]


def stale_sources(conn: Connection, feeds: Collection[str], now: datetime) -> list[str]:
    """Sources of which one of these feeds is stale."""
    if not feeds:
        return []
    named = (name.split("/") for name in stale_feeds(conn, now))
    return sorted({source for source, entity in named if entity in feeds})


def keep(conn: Connection, feeds: Iterable[Feed], now: datetime, run_id: str, *, only_changes: bool = False) -> int:
    """Store one verdict for each source in gate_results; only_changes: where it differs from the newest one. How many."""
    known = dict[str, Any]()
    if only_changes:
        newest = text("""select distinct on (subject) subject, failures from gate_results where gate = :gate
                         order by subject, checked_at desc, gate_result_id desc""")
        known = {row.subject: _reasons(row.failures) for row in conn.execute(newest, {"gate": GATE})}
    kept = 0
    for source, grouped in groupby(feeds, key=lambda feed: feed.source_id):
        own = list(grouped)
        failures = [_failure(feed) for feed in own if feed.reason]
        if only_changes and known.get(source) == _reasons(failures):
            continue
        db.run(
            conn, "96_keep_verdict", gate=GATE, subject=source, run_id=run_id, now=now, success=not failures,
            suite_hash=_rule(), evaluated=len(own), failures=db.dumps(failures),
            metrics=db.dumps({feed.entity: _figures(feed) for feed in own}), docs=None,
        )  # fmt: skip
        kept += 1
    return kept


def _reasons(failures: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return sorted((failure["column"], failure["expectation"]) for failure in failures)


def _failure(feed: Feed) -> dict[str, Any]:
    """In the shape of every gate's failures; the reason stands for the expectation."""
    thin = bool(feed.reason and feed.reason.startswith("too_few"))
    return {
        "severity": "stop",
        "batch": "feeds",
        "column": feed.entity,
        "expectation": feed.reason,
        "unexpected": feed.found if thin else None,
        "of": None,
        "expected": f"usual are {feed.usual:,.0f}" if thin and feed.usual else f"at most {_hours(feed.lag_limit)} old",
        "error": None if thin else str(feed),
    }


def _figures(feed: Feed) -> dict[str, Any]:
    def seconds(span: timedelta | None) -> int | None:
        return None if span is None else int(span.total_seconds())

    return asdict(feed) | {
        "newest": feed.newest.isoformat() if feed.newest else None,
        "loaded_at": feed.loaded_at.isoformat() if feed.loaded_at else None,
        "day": feed.day.isoformat() if feed.day else None,
        **{key: seconds(getattr(feed, key)) for key in ("lag", "lag_limit", "usual_lag")},
    }


def _rule() -> str:
    """Hash of the rule and its limits: what a stored verdict was measured by."""
    body = (settings().sql / "schema" / "rules" / "70_feeds.sql").read_text(encoding="utf-8")
    rule = body.partition("function postlude.feed_verdicts(")[2].partition("$$;")[0]
    limits = f"{settings().feed_share} {settings().feed_least}"
    return hashlib.sha256(f"{rule}\n{limits}".encode()).hexdigest()
