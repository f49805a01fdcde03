"""The quick lane: what people wait for (order confirmations, parcels, refunds) is planned every few minutes, not once a day.

One task of one DAG: asking shops marked `live`, planning every transactional campaign, handing over what they planned. What
goes wrong with one shop or one campaign holds up no other.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from postlude import campaign_checks, coupons, db, enrolment, flows, pipeline
from postlude.calendar import Calendar, steered
from postlude.campaign import Campaign
from postlude.errors import InputError, PostludeError, Unavailable
from postlude.settings import settings
from postlude.sources import load_source

log = logging.getLogger(__name__)

Counts = pipeline.Counts


def tell(clock: Callable[[], datetime], worker: str, now: datetime, run_id: str, origin: str) -> Counts:
    """Ask the live shops, plan, hand over. Counts of all three; `ill` are shops and campaigns that could not go on.

    Raises the gravest of what went wrong, once everything else is done.
    """
    ill: list[PostludeError] = []
    counts: Counts = {"shops": 0, "campaigns": 0, "enrolled": 0, "planned": 0}
    ask(now, run_id, origin, counts, ill)
    plan(now, run_id, origin, counts, ill)
    try:
        sent = pipeline.deliver(clock, worker, run_id, origin, kind="transactional")
        counts.update({key: count for key, count in sent.items() if isinstance(count, int)})
    except PostludeError as error:
        ill.append(error)
    counts["ill"] = len(ill)
    if ill:
        for one in ill:
            log.error("%s", one)
        # what will pass by itself is tried again; what a person must mend is not
        raise next((one for one in ill if not isinstance(one, Unavailable)), ill[0])
    return counts


def ask(now: datetime, run_id: str, origin: str, counts: Counts, ill: list[PostludeError]) -> None:
    """Bring in what the shops marked `live` have new, through the same gates as the daily run."""
    for path in pipeline.list_sources():
        try:
            if not load_source(Path(path)).live:
                continue
            pipeline.extract(path, now, run_id, origin)
            pipeline.check("orders", path, now, run_id)
            loaded = pipeline.load(path, now, run_id, origin)
            counts["shops"] += 1
            counts["orders"] = counts.get("orders", 0) + loaded.get("orders", 0)
        except PostludeError as error:
            ill.append(error)


def plan(now: datetime, run_id: str, origin: str, counts: Counts, ill: list[PostludeError]) -> None:
    """Enrol, schedule, check and release every transactional campaign that is on."""
    days = pipeline.calendar(now)
    for flow in flows.all_flows():
        if flow.campaign is None or flow.campaign.kind != "transactional" or flow.state != "on":
            continue  # a broken file has a red DAG of its own
        try:
            planned = plan_one(steered(flow.campaign, days), days, now, run_id, origin)
        except PostludeError as error:
            ill.append(error)
            continue
        counts["campaigns"] += 1
        counts["enrolled"] += planned.get("enrolled", 0)
        counts["planned"] += planned.get("planned", 0)


def plan_one(spec: Campaign, days: Calendar, now: datetime, run_id: str, origin: str) -> Counts:
    """One campaign, in one transaction and one row of `runs` where there is nothing new; checked like any plan where there is."""
    file = settings().include / "campaigns" / f"{spec.id}.yml"
    pools = coupons.load_pools()
    with pipeline.recorded("enrol", spec.id, now, run_id, origin) as counts, db.transaction() as conn:
        coupons.declare(conn, pools, now)
        past = pipeline.history_before(now, origin)
        counts.update(enrolment.enrol(conn, spec, now, run_id, history_before=past, calendar=days))
        counts.update(enrolment.schedule(conn, spec, days, past or now, run_id))
        counts.update(coupons.reserve(conn, spec, past or now))
        # rendering every template for everybody awkward takes longer than all the rest: only when something would go out
        if counts["planned"] and (
            faults := campaign_checks.faults_of(file, spec, remember=True) + coupons.pool_faults(spec, pools)
        ):
            raise InputError(faults)
    if counts["planned"]:
        pipeline.check("plan", spec.id, now, run_id)
        counts.update(pipeline.release(str(file), now, run_id, origin))
    return counts
