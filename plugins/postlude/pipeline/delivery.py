"""Messages out, and what comes back of them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy.exc import DBAPIError

from postlude import (
    consents,
    coupons,
    db,
    enrolment,
    freshness,
    outbox,
    tokens,
)
from postlude import feedback as feedback_stage
from postlude.calendar import Calendar, effective, one_offs
from postlude.campaign import Campaign
from postlude.channels import channel
from postlude.errors import Fault, InputError, Unavailable
from postlude.graceful import told_to_stop
from postlude.pipeline.campaigns import calendar, campaign_files, in_force
from postlude.pipeline.runs import Counts, Progress, recorded
from postlude.pipeline.ways import routes
from postlude.quotas import load_quotas
from postlude.settings import settings

log = logging.getLogger(__name__)


def deliver(
    clock: Callable[[], datetime],
    worker: str,
    run_id: str,
    origin: str = "manual",
    *,
    shard: int = 0,
    shards: int = 1,
    kind: str | None = None,
    progress: Progress | None = None,
) -> Counts:
    """Hand over what is due in this shard. `clock` is the wall clock; only a rehearsal by hand sets it to the past.

    kind: `transactional` for those campaigns alone, however much of the others is due.

    Raises Unavailable when the relay takes no mail, InputError when a template must be mended; what could go has gone.
    """
    ways = routes(clock())
    tokens.check_secret()  # before anything is claimed: a weak key must not hold messages one by one
    plan = calendar(clock())
    campaigns = [c for c in sound_campaigns(plan, clock()) if kind in (None, c.kind)]
    faults: list[str] = []
    down: list[str] = []
    boxes: list[outbox.Outbox] = []

    def stop() -> None:
        stopping.set()
        for box in boxes:
            box.stop()

    stopping = threading.Event()
    with told_to_stop(stop), recorded("deliver", kind or str(shard), clock(), run_id, origin) as counts:
        with db.transaction() as conn:
            db.walk(conn)
            coupons.declare(conn, coupons.load_pools(), clock())
            consents.remember_terms(conn)
            counts.update(coupons.wake(conn, clock()))
            for spec in campaigns:  # what the calendar moved since it was planned must not go on its old day
                if enrolment.must_move(conn, spec, plan):
                    enrolment.schedule(conn, spec, plan, clock(), run_id)
            due = {row.channel: row.people for row in db.run(conn, "40_channels_due", now=clock())}
        _note_feeds(clock(), run_id)
        for missing in sorted(name for name, people in due.items() if people and name not in ways):
            # said at every run: these messages wait, and expire in the end
            counts[f"no_way_out:{missing}"] = 1
            log.error(
                "messages wait for the channel %s, which is not set; set POSTLUDE_%s_URL", missing, missing.upper()
            )
        for name, (module, url) in ways.items():
            if name not in due or stopping.is_set():
                continue
            box = outbox.Outbox(
                engine=db.default_engine(), channel=channel(module), url=url, campaigns=campaigns, calendar=plan, clock=clock,
                calendar_at=effective, worker=worker, shard=shard, shards=shards, batch=settings().batch, channel_name=name,
                lanes=settings().connections, quotas=load_quotas(),
            )  # fmt: skip
            boxes.append(box)
            for key, count in box.deliver(progress).items():
                counts[key] = counts.get(key, 0) + count
            faults += box.faults
            if box.counts["relay_down"]:
                down.append(name)
        if counts.get("held:coupon_exhausted"):
            with db.transaction() as conn:
                coupons.watch(conn, clock())
        if faults:
            raise InputError(sorted_faults(faults))
        if down:
            raise Unavailable(
                f"the relay does not take {' and '.join(down)}; {counts.get('sent', 0)} messages went before, the rest waits"
            )
    return counts


def _note_feeds(now: datetime, run_id: str) -> None:
    """Keep what became of each feed since the last verdict; the last look of each message judges them itself."""
    try:
        with db.transaction() as conn:
            freshness.keep(conn, freshness.verdicts(conn, now), now, run_id, only_changes=True)
    except DBAPIError as error:
        log.error("the verdicts on the feeds could not be kept: %s", type(error.orig).__name__)


def sorted_faults(faults: list[str]) -> list[Fault]:
    """Each different fault once."""
    return [Fault("", 0, "", fault) for fault in dict.fromkeys(faults)]


def sound_campaigns(plan: Calendar, now: datetime) -> list[Campaign]:
    """Campaigns whose file can be read. One that cannot sends nothing until it is mended; the others go on."""
    sound = one_offs(plan, now, timedelta(days=60))
    for path in campaign_files():
        try:
            sound.append(in_force(path, plan))
        except InputError as error:
            log.error("%s: its messages wait until the file is mended: %s", Path(path).stem, error)
    return sound


def recover(now: datetime, run_id: str) -> Counts:
    """Take back the claims of workers that are gone; transactional messages whose answer was lost are due again."""
    return outbox.recover(db.default_engine(), now) | outbox.send_again(db.default_engine(), now)


def collect(now: datetime, run_id: str, origin: str = "manual") -> Counts:
    """Land what the channel reports. Raises Unavailable."""
    with recorded("collect", "", now, run_id, origin) as counts, db.transaction() as conn:
        for name, (module, url) in routes().items():
            # one catcher stands for all channels: asked once
            if name == "email" or url != routes()["email"][1]:
                for key, count in feedback_stage.collect(conn, channel(module), url, name, now).items():
                    counts[key] = counts.get(key, 0) + count
    if maildir := settings().mailbox:
        with recorded("collect", "mailbox", now, run_id, origin) as found:
            with db.transaction() as conn:
                mails, read = feedback_stage.collect_mailbox(conn, maildir, now)
            done = maildir / "processed"
            done.mkdir(exist_ok=True)
            for path in read:  # only now that they are landed for good
                path.replace(done / path.name)
            found.update(mails)
        counts.update({f"mail_{kind}": count for kind, count in mails.items()})
    counts.update(_pull_lists(now, run_id, origin))
    return counts


def _pull_lists(now: datetime, run_id: str, origin: str) -> Counts:
    """What providers keep in lists. A key that may not read them is said and holds nothing up. Raises Unavailable."""
    counts: Counts = {}
    for name, (module, url) in routes().items() if settings().report_lists else ():
        if not hasattr(channel(module), "lists"):
            continue
        with recorded("collect", module, now, run_id, origin) as found:
            try:  # pages are landed one by one: what was read stays when a later one fails
                found.update(feedback_stage.pull(db.transaction, channel(module), url, name, module, now))
            except InputError as error:
                log.error("%s; let it read them, or set POSTLUDE_REPORT_LISTS=false", error)
                found["refused"] = 1
        counts.update({f"{module}_{key}": count for key, count in found.items()})
    return counts


def apply_events(now: datetime, run_id: str, origin: str = "manual") -> Counts:
    """Turn reports into events and let them have their effects; then end the passages they end."""
    with recorded("apply_events", "", now, run_id, origin) as counts, db.transaction() as conn:
        counts.update(feedback_stage.apply(conn, now))
        campaigns = sound_campaigns(effective(conn, now), now)
        counts.update(enrolment.end_enrolments(conn, campaigns, now))
        counts["consents_withdrawn"] = sum(enrolment.withdraw_unanswered(conn, one, now) for one in campaigns)
    return counts
