"""A campaign from its file to messages that may go: enrol, schedule, gates, approvals, release."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any
from uuid import uuid4

from sqlalchemy import text

from postlude import (
    campaign_checks,
    consents,
    coupons,
    db,
    deliverability,
    enrolment,
    flows,
    freshness,
    tallies,
    volume,
)
from postlude.calendar import Calendar, effective, one_off, one_offs, steered
from postlude.campaign import Campaign, load_campaign
from postlude.channels import channel
from postlude.errors import Fault, GateClosed, InputError
from postlude.message import Address, Message, to_bytes
from postlude.pipeline.gates import check
from postlude.pipeline.runs import Counts, recorded
from postlude.pipeline.ways import routes
from postlude.rendering import load_theme
from postlude.settings import settings

log = logging.getLogger(__name__)


ONE_OFF = "one-off:"  # stands before the id of a campaign that is in the calendar and has no file


def calendar(now: datetime | None = None) -> Calendar:
    """The calendar in force at `now` (default: the present): the file, and what marketers laid over it.

    Raises InputError with file:line.
    """
    with db.transaction() as conn:
        return effective(conn, now or datetime.now(UTC))


def in_force(campaign: str, plan: Calendar) -> Campaign:
    """The campaign as the calendar steers it. campaign: a file, or ONE_OFF and an id. Raises InputError."""
    if not campaign.startswith(ONE_OFF):
        return steered(load_campaign(Path(campaign)), plan)
    name = campaign.removeprefix(ONE_OFF)
    for special in plan.specials:
        if special.id == name:
            return one_off(special, plan)
    raise InputError(f'the calendar has no offer or card "{name}"; it was cancelled')


def one_off_campaigns(now: datetime) -> list[str]:
    """What stands in the calendar only and may be planned about now, as the functions here name a campaign."""
    return [ONE_OFF + campaign.id for campaign in one_offs(calendar(now), now)]


def _faults(campaign: str, spec: Campaign, pools: Mapping[str, Any]) -> list[Fault]:
    """What it names and is not there. A one-off send was checked when it was put into the calendar, all but its coupons."""
    named = [] if campaign.startswith(ONE_OFF) else campaign_checks.faults_of(Path(campaign), spec, remember=True)
    return named + coupons.pool_faults(spec, dict(pools))


def enrol(campaign: str, now: datetime, run_id: str, origin: str) -> Counts:
    """Enrol one campaign's candidates. Runs over the past only enrol passages that are entirely over."""
    plan = calendar(now)
    spec, pools = in_force(campaign, plan), coupons.load_pools()
    if faults := _faults(campaign, spec, pools):
        raise InputError(faults)
    if off := flows.lacking(spec, flows.delivered()):
        log.warning("%s is off: it %s", spec.id, off)
        return {"off": 1, "enrolled": 0}
    with recorded("enrol", spec.id, now, run_id, origin) as counts:
        with db.transaction() as conn:  # a short one: whoever learns something new holds up the others until it ends
            coupons.declare(conn, pools, now)
            consents.remember_terms(conn)
        with db.transaction() as conn:
            past = history_before(now, origin)
            counts.update(enrolment.enrol(conn, spec, now, run_id, history_before=past, calendar=plan))
    return counts


def schedule(campaign: str, now: datetime, run_id: str, origin: str) -> Counts:
    """Plan the messages of everybody enrolled; they stay held until `release`."""
    plan = calendar(now)
    spec = in_force(campaign, plan)
    with recorded("schedule", spec.id, now, run_id, origin) as counts, db.transaction() as conn:
        # whatever the run speaks of, a message that is over by the wall clock is written as expired
        counts.update(enrolment.schedule(conn, spec, plan, history_before(now, origin) or now, run_id))
        counts.update(coupons.reserve(conn, spec, history_before(now, origin) or now))
    return counts


def check_feeds(campaign: str, now: datetime, run_id: str, origin: str) -> Counts:
    """Judge every feed, keep the verdicts, and raise GateClosed with the names of the stale ones the campaign depends on.

    It holds nothing by itself: enrolment and hand-over ask again, for each customer's own shop. A source that is only loaded by
    hand (`scheduled: false`) raises no alarm; its customers are held all the same.
    """
    spec = in_force(campaign, calendar(now))
    with recorded("check_feeds", spec.id, now, run_id, origin) as counts:
        with db.transaction() as conn:
            feeds = freshness.verdicts(conn, now)
            freshness.keep(conn, feeds, now, run_id)
        stale = [feed for feed in feeds if feed.reason and feed.entity in spec.feeds]
        counts.update({"feeds": len(feeds), "stale": len(stale), "stale_feeds": [feed.name for feed in stale]})
        for feed in stale:
            log.warning("feed %s", feed)
        if alarming := [str(feed) for feed in stale if feed.scheduled]:
            raise GateClosed(
                f"gate {freshness.GATE} is closed for {spec.id}: {'; '.join(alarming)}. Customers of that shop are held, the others "
                "go on. Mend the feed and run ingest; `postlude feeds` shows them all."
            )
    return counts


def release(campaign: str, now: datetime, run_id: str, origin: str) -> Counts:
    """The plan passed its gates: its messages may go when they are due, of a large one a share first.

    The volume is looked at in the same transaction once more: what was planned since is not released unseen.
    """
    spec = in_force(campaign, calendar(now))
    with recorded("release", spec.id, now, run_id, origin) as counts, db.transaction() as conn:
        counts.update(volume.assess(conn, spec, now, run_id))
        if not counts["approval"]:
            counts.update(volume.put_off(conn, spec, now, run_id))
        counts.update(enrolment.release(conn, spec))
    return counts


def assess(campaign: str, now: datetime, run_id: str, origin: str) -> Counts:
    """Compare the plan with what is usual. `approval` is the number of the request that holds it, 0: it may be released."""
    spec = in_force(campaign, calendar(now))
    with recorded("assess", spec.id, now, run_id, origin) as counts, db.transaction() as conn:
        counts.update(volume.assess(conn, spec, now, run_id))
    return counts


def request(approval_id: int, now: datetime) -> tuple[str, str] | None:
    """Subject and body of a request that still waits for its answer, else None."""
    with db.transaction() as conn:
        asked = volume.approvals(conn, now, approval_id)[0]
    return volume.in_words(asked) if asked.decision == "open" else None


def decide(
    approval_id: int, approve: bool, by: str, via: str, now: datetime, run_id: str, origin: str,
    *, comment: str | None = None, at_most: int | None = None,
) -> Counts:  # fmt: skip
    """Approve or reject a request for approval. An approval of what is no longer there releases nothing and asks anew."""
    with recorded("decide", str(approval_id), now, run_id, origin) as counts, db.transaction() as conn:
        counts.update(volume.decide(conn, approval_id, approve, by, via, now, run_id, comment=comment, at_most=at_most))
        if counts["changed"]:
            path = settings().include / "campaigns" / f"{counts['campaign']}.yml"
            name = str(path) if path.is_file() else ONE_OFF + counts["campaign"]
            spec = in_force(name, effective(conn, now))
            counts["asked_again"] = volume.assess(conn, spec, now, run_id)["approval"]
    return counts


def tell_staff(to: Sequence[str], subject: str, words: str, now: datetime) -> int:
    """A plain mail to members of staff, through the way marketing mail takes (the catcher while sending is off).

    Returns how many took it. Raises InputError when there is no way out or no usable sender.
    """
    module, url = routes()["email"]
    sender = load_theme().sender
    told = 0
    with channel(module).connect(url) as send:
        for address in to:
            mail = Message(
                message_id=uuid4(), campaign_id="postlude", kind="transactional", sender=Address(sender.address, "Postlude"),
                recipient=Address(address), subject=subject, text=words, html=f"<pre>{escape(words)}</pre>", date=now,
            )  # fmt: skip
            told += send(mail, to_bytes(mail), lambda: None).kind == "accepted"
    return told


def watch(now: datetime, run_id: str, origin: str = "manual") -> Counts:
    """Let releases go on whose canary did well; stop campaigns whose mail bounces or is complained of; expire what was held for
    too long; count what the pages show.

    Raises GateClosed for a canary that did badly, or a campaign that was stopped just now.
    """
    with recorded("watch", "", now, run_id, origin) as counts:
        with db.transaction() as conn:
            counts.update(volume.expire_held(conn, now))
            counts.update(volume.watch_canaries(conn, now))
            counts["campaigns_stopped"] = deliverability.watch(conn, now)
        with db.transaction() as conn:
            counts.update(tallies.refresh(conn, now))
        if bad := counts["canaries_failed"] + counts["campaigns_stopped"]:
            raise GateClosed("; ".join(bad))
    return counts


def history_before(now: datetime, origin: str) -> datetime | None:
    """The wall clock for runs over the past, None for a run of today. A rehearsal by hand (cli, test) may live in the past."""
    wall = datetime.now(UTC)
    if origin == "backfill" or (origin not in ("cli", "test") and wall - now > settings().max_past):
        return wall
    return None


def run_campaign(campaign: str, now: datetime, run_id: str, origin: str) -> Counts:
    """enrol → schedule → gates → release, for callers without a scheduler. What needs an approval stays held (`approval`)."""
    counts = enrol(campaign, now, run_id, origin)
    counts.update(schedule(campaign, now, run_id, origin))
    check("plan", Path(campaign).stem.removeprefix(ONE_OFF), now, run_id)
    counts |= release(campaign, now, run_id, origin)
    if in_force(campaign, calendar(now)).feeds:
        try:
            check_feeds(campaign, now, run_id, origin)
        except GateClosed as closed:  # the other shops went on
            counts["stale_feeds"] = str(closed)
    return counts


def rehearse_campaign(campaign: str, now: datetime, run_id: str) -> Counts:
    """What `plan` would do, in counts and reasons, without writing anything: the same code, then rolled back."""
    plan = calendar(now)
    spec, pools = in_force(campaign, plan), coupons.load_pools()
    if faults := _faults(campaign, spec, pools):
        raise InputError(faults)
    with db.default_engine().connect() as conn:  # never committed
        consents.remember_terms(conn)
        counts = enrolment.enrol(conn, spec, now, run_id, calendar=plan)
        counts |= enrolment.schedule(conn, spec, plan, now, run_id)
        coupons.declare(conn, pools, now)
        counts |= coupons.reserve(conn, spec, now)
        due = text("""select count(*) filter (where state = 'expired') as expired, min(send_at) filter (where state = 'held') as first
                      from messages where run_id = :run""")
        counts |= {"already_expired": (row := conn.execute(due, {"run": run_id}).one()).expired, "first_due": row.first}
        conn.rollback()
    return counts | {"written": "nothing"}


def campaign_files() -> list[str]:
    return [str(path) for path in sorted((settings().include / "campaigns").glob("[!.]*.yml"))]
