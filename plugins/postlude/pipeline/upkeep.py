"""The report, and what is looked after once a day."""

from __future__ import annotations

import shutil
from datetime import UTC, datetime, timedelta

from postlude import (
    coupons,
    db,
    enrolment,
    report,
    tallies,
)
from postlude.calendar import effective
from postlude.errors import InputError
from postlude.pipeline.delivery import sound_campaigns
from postlude.pipeline.runs import Counts, recorded
from postlude.settings import settings


def write_report(now: datetime, run_id: str, origin: str = "manual") -> Counts:
    """Write the report page; returns its figures."""
    with recorded("report", "", now, run_id, origin) as counts, db.transaction() as conn:
        _, figures = report.write(conn, now, settings().home / "reports")
        counts.update(figures)
    return counts


def maintain(now: datetime, run_id: str, origin: str = "manual") -> Counts:
    """Close passages that are over; drop pages, and rows that have done their work (docs/upkeep.md). What explains a message stays."""
    with recorded("maintain", "", now, run_id, origin) as counts, db.transaction() as conn:
        counts.update(enrolment.end_enrolments(conn, sound_campaigns(effective(conn, now), now), now))
        counts.update(tallies.refresh(conn, now, full=True))
        counts["pages_removed"] = _prune(now - timedelta(days=settings().docs_days))
        # a run over the past prunes by the day it speaks of: never more than the wall clock would
        config = settings()
        counts.update(
            db.run(
                conn, "97_prune", now=now, banners_for=timedelta(days=config.banner_days),
                reports_for=timedelta(days=config.inbox_days), records_for=timedelta(days=config.record_days),
            ).mappings().one()
        )  # fmt: skip
    return counts


def watch_coupons(now: datetime, run_id: str, origin: str = "manual") -> Counts:
    """Raise the alarm for every coupon pool that runs low, by stock or by budget, or has messages waiting for a code.

    Raises InputError with a line for each of them.
    """
    with recorded("watch_coupons", "", now, run_id, origin) as counts:
        with db.transaction() as conn:
            low = coupons.watch(conn, now)
        counts["coupon_alarms"] = len(low)
        if low:
            raise InputError("\n".join(low))
    return counts


def _prune(before: datetime) -> int:
    removed = 0
    for pattern in ("data_docs/*/*", "reports/*.html", "clean-templates/*"):
        for page in settings().home.glob(pattern):
            if datetime.fromtimestamp(page.stat().st_mtime, UTC) < before:
                shutil.rmtree(page) if page.is_dir() else page.unlink()
                removed += 1
    return removed
