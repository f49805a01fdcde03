"""Each stage with its transaction, its gate and its row in `runs`: what the DAGs and the command line call.

Nothing here is specific to Airflow. The functions take the run's clock (`now`, aware UTC), its id and its origin, use the
database of the settings, and return a flat dict of counts (never a person's data).
"""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from html import escape
from pathlib import Path
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from postlude import (
    audience,
    campaign_checks,
    consents,
    coupons,
    db,
    deliverability,
    enrolment,
    flows,
    freshness,
    gifts,
    happenings,
    identities,
    intake,
    legal,
    loyalty,
    mail_lint,
    outbox,
    quality,
    quarantine,
    recovery,
    rendering,
    report,
    tallies,
    tokens,
    volume,
    yamlfile,
)
from postlude import feedback as feedback_stage
from postlude import recommend as recommendations
from postlude.calendar import Calendar, effective, faults_in, load_calendar, one_off, one_offs, steered
from postlude.campaign import Campaign, load_campaign
from postlude.channels import channel
from postlude.errors import Fault, GateClosed, InputError, Unavailable
from postlude.graceful import told_to_stop
from postlude.loyalty_rules import faults as loyalty_faults
from postlude.loyalty_rules import load_loyalty, load_recovery
from postlude.message import Address, Message, to_bytes
from postlude.quotas import load_quotas
from postlude.rendering import load_theme
from postlude.settings import settings
from postlude.sources import Source, load_source, reader

log = logging.getLogger(__name__)

Counts = dict[str, Any]
Progress = Callable[..., None]


@contextmanager
def _recorded(stage: str, subject: str, now: datetime, run_id: str, origin: str) -> Iterator[Counts]:
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


# ---------------------------------------------------------------- orders in


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
    with _recorded("extract", spec.id, now, run_id, origin) as counts, db.transaction() as conn:
        counts.update(intake.extract(conn, spec, _arrival(now), run_id, progress))
        intake.claim(conn, spec, run_id)
    return counts


def load(source: str, now: datetime, run_id: str, origin: str) -> Counts:
    """Merge what was staged; refused rows go to the quarantine. Raises GateClosed when too many are refused.

    Only what this run staged, and has checked: a run that overlaps with it stages all of it anew, and loads that itself. Raises
    Unavailable until it has, since what follows must not see half a day.
    """
    spec = load_source(Path(source))
    with _recorded("load", spec.id, now, run_id, origin) as counts, db.transaction() as conn:
        if intake.holder(conn, spec) not in (run_id, None) and _loaded_by_another(conn, spec.id, run_id):
            counts.update(TAKEN_OVER)
            return counts
        counts.update(intake.load(conn, spec, _arrival(now), run_id))
        counts["same_person"] = identities.apply(conn, identities.load_rules(), now)["merged"]
        counts["released"] += quarantine.adopt(conn, spec, _arrival(now), run_id).get("released", 0)
    return counts


def replay(
    source: str, ids: Sequence[int], now: datetime, run_id: str, origin: str,
    *, corrections: Mapping[str, str] | None = None, through_mapping: bool = False, progress: Progress | None = None,
) -> Counts:  # fmt: skip
    """Try rows of the quarantine again (see `quarantine`). source: a source file, or the name of one in include/sources."""
    spec = load_source(Path(source) if Path(source).is_file() else Path(list_sources(source)[0]))
    with _recorded("replay", spec.id, now, run_id, origin) as counts, db.transaction() as conn:
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


def _arrival(now: datetime) -> datetime:
    """When a delivery is looked at: now, also for a run as of the past. What lies after that run's clock is real, not "in the
    future"; every stage after the load reads as of its own clock and does not see it."""
    return max(now, datetime.now(UTC))


def check(gate: str, subject: str, now: datetime, run_id: str, origin: str = "manual") -> Counts:
    """Run a gate and build its Data Docs. Raises GateClosed with the failing expectations and counts."""
    minimum = None
    if gate == "features":
        with db.transaction() as conn:
            if _overtaken(conn, now, origin):  # a run over the past left them as they are: nothing of it to check
                return {"left_as_they_are": 1}
    if gate == "orders":
        spec = load_source(Path(subject))
        subject, now = spec.id, _arrival(now)
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


# ---------------------------------------------------------------- features and segments


def derive_features(now: datetime, run_id: str, origin: str, full: bool = False) -> Counts:
    """Features of all customers as of `now`; full: from scratch, whatever is there.

    A run over the past counts only: it must not turn the present back.
    """
    with _recorded("derive_features", "", now, run_id, origin) as counts, db.transaction() as conn:
        counts.update(audience.derive_features(conn, now, run_id, not _overtaken(conn, now, origin), full))
    return counts


def _overtaken(conn: Connection, now: datetime, origin: str) -> bool:
    """Is this a run over the past, or a slot that a newer run has overtaken? A person who asks for the past gets it."""
    if origin in ("cli", "test", "manual"):
        return False
    newest = conn.execute(text("select as_of from feature_state")).scalar()
    return origin == "backfill" or (newest is not None and newest > now)


def update_segments(now: datetime, run_id: str, origin: str) -> Counts:
    """Who entered and left each segment. A backfill leaves the memberships as they are."""
    segments = audience.load_segments(settings().include / "segments")
    with _recorded("update_segments", "", now, run_id, origin) as counts, db.transaction() as conn:
        if _overtaken(conn, now, origin):
            counts.update({"segments": len(segments), "left_as_they_are": 1})
        else:
            counts.update(audience.update_segments(conn, segments, now, run_id))
    return counts


def keep_loyalty(now: datetime, run_id: str, origin: str) -> Counts:
    """Memberships, tiers and points as of `now`. Without include/loyalty.yml there is no club and nothing to do."""
    rules = load_loyalty()
    with _recorded("keep_loyalty", "", now, run_id, origin) as counts, db.transaction() as conn:
        if rules is None:
            counts["no_club"] = 1
        elif _overtaken(conn, now, origin):
            counts["left_as_they_are"] = 1
        else:
            counts.update(loyalty.update(conn, rules, now, run_id))
    return counts


def note_happenings(now: datetime, run_id: str, origin: str) -> Counts:
    """Cases of service recovery, the draw of gifts, and every event that starts a campaign, as of `now`."""
    with _recorded("note_happenings", "", now, run_id, origin) as counts, db.transaction() as conn:
        if _overtaken(conn, now, origin):
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
    with _recorded("recommend", "", now, run_id, origin) as counts, db.transaction() as conn:
        newest = conn.execute(text("select as_of from recommend_state")).scalar()
        if origin not in ("cli", "test", "manual") and (origin == "backfill" or (newest is not None and newest > now)):
            counts["left_as_it_is"] = 1
        else:
            counts.update(recommendations.count(conn, now, run_id, full))
    return counts


# ---------------------------------------------------------------- campaigns


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
    with db.transaction() as conn:
        coupons.declare(conn, pools, now)
    with _recorded("enrol", spec.id, now, run_id, origin) as counts, db.transaction() as conn:
        past = _history_before(now, origin)
        consents.remember_terms(conn)
        counts.update(enrolment.enrol(conn, spec, now, run_id, history_before=past, calendar=plan))
    return counts


def schedule(campaign: str, now: datetime, run_id: str, origin: str) -> Counts:
    """Plan the messages of everybody enrolled; they stay held until `release`."""
    plan = calendar(now)
    spec = in_force(campaign, plan)
    with _recorded("schedule", spec.id, now, run_id, origin) as counts, db.transaction() as conn:
        # whatever the run speaks of, a message that is over by the wall clock is written as expired
        counts.update(enrolment.schedule(conn, spec, plan, _history_before(now, origin) or now, run_id))
        counts.update(coupons.reserve(conn, spec, _history_before(now, origin) or now))
    return counts


def check_feeds(campaign: str, now: datetime, run_id: str, origin: str) -> Counts:
    """Judge every feed, keep the verdicts, and raise GateClosed with the names of the stale ones the campaign depends on.

    It holds nothing by itself: enrolment and hand-over ask again, for each customer's own shop. A source that is only loaded by
    hand (`scheduled: false`) raises no alarm; its customers are held all the same.
    """
    spec = in_force(campaign, calendar(now))
    with _recorded("check_feeds", spec.id, now, run_id, origin) as counts:
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
    with _recorded("release", spec.id, now, run_id, origin) as counts, db.transaction() as conn:
        counts.update(volume.assess(conn, spec, now, run_id))
        if not counts["approval"]:
            counts.update(volume.put_off(conn, spec, now, run_id))
        counts.update(enrolment.release(conn, spec))
    return counts


def assess(campaign: str, now: datetime, run_id: str, origin: str) -> Counts:
    """Compare the plan with what is usual. `approval` is the number of the request that holds it, 0: it may be released."""
    spec = in_force(campaign, calendar(now))
    with _recorded("assess", spec.id, now, run_id, origin) as counts, db.transaction() as conn:
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
    with _recorded("decide", str(approval_id), now, run_id, origin) as counts, db.transaction() as conn:
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
    with _recorded("watch", "", now, run_id, origin) as counts:
        with db.transaction() as conn:
            counts.update(volume.expire_held(conn, now))
            counts.update(volume.watch_canaries(conn, now))
            counts["campaigns_stopped"] = deliverability.watch(conn, now)
        with db.transaction() as conn:
            counts.update(tallies.refresh(conn, now))
        if bad := counts["canaries_failed"] + counts["campaigns_stopped"]:
            raise GateClosed("; ".join(bad))
    return counts


def _history_before(now: datetime, origin: str) -> datetime | None:
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


# ---------------------------------------------------------------- delivery and feedback


CHANNELS = ("email", "sms", "webhook", "banner")


def routes(now: datetime | None = None) -> dict[str, tuple[str, str]]:
    """Channel -> channel module and URL it goes through: as set when sending is switched on, else the catcher for all.

    now: the clock of a run by hand. A clock in the past is a rehearsal; it never reaches anybody outside.
    Raises InputError when that is asked for, or when sending is on and mail has no way out.
    """
    config = settings()
    if not config.sending:
        port, reports = config.catcher_smtp_port, f"http://127.0.0.1:{config.catcher_http_port}/api/events"
        url = config.catcher_url or f"smtp://127.0.0.1:{port}?starttls=never&events={reports}"
        return dict.fromkeys(CHANNELS, ("smtp", url))
    if not (config.email_url or config.smtp_url):
        raise InputError(
            "POSTLUDE_SENDING is on but POSTLUDE_SMTP_URL is empty; write e.g. smtp://user:password@relay.example:587"
        )
    if now is not None and datetime.now(UTC) - now > config.max_lag:
        raise InputError(
            f"as of {now:%Y-%m-%d %H:%M} UTC lies in the past and sending is switched on; what is due now is sent by a run of now"
        )
    urls = {
        "email": config.email_url or config.smtp_url,
        "sms": config.sms_url,
        "webhook": config.webhook_url,
        "banner": "banner:" if config.banners else "",
    }
    return {name: (_module_of(url), url) for name, url in urls.items() if url}


def _module_of(url: str) -> str:
    """The channel module a URL names by its scheme."""
    scheme = url.partition(":")[0].lower()
    return "smtp" if scheme == "smtps" else scheme


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
    campaigns = [c for c in _sound_campaigns(plan, clock()) if kind in (None, c.kind)]
    faults: list[str] = []
    down: list[str] = []
    boxes: list[outbox.Outbox] = []

    def stop() -> None:
        stopping.set()
        for box in boxes:
            box.stop()

    stopping = threading.Event()
    with told_to_stop(stop), _recorded("deliver", kind or str(shard), clock(), run_id, origin) as counts:
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


def _sound_campaigns(plan: Calendar, now: datetime) -> list[Campaign]:
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
    with _recorded("collect", "", now, run_id, origin) as counts, db.transaction() as conn:
        for name, (module, url) in routes().items():
            # one catcher stands for all channels: asked once
            if name == "email" or url != routes()["email"][1]:
                for key, count in feedback_stage.collect(conn, channel(module), url, name, now).items():
                    counts[key] = counts.get(key, 0) + count
    if maildir := settings().mailbox:
        with _recorded("collect", "mailbox", now, run_id, origin) as found:
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
        with _recorded("collect", module, now, run_id, origin) as found:
            try:  # pages are landed one by one: what was read stays when a later one fails
                found.update(feedback_stage.pull(db.transaction, channel(module), url, name, module, now))
            except InputError as error:
                log.error("%s; let it read them, or set POSTLUDE_REPORT_LISTS=false", error)
                found["refused"] = 1
        counts.update({f"{module}_{key}": count for key, count in found.items()})
    return counts


def apply_events(now: datetime, run_id: str, origin: str = "manual") -> Counts:
    """Turn reports into events and let them have their effects; then end the passages they end."""
    with _recorded("apply_events", "", now, run_id, origin) as counts, db.transaction() as conn:
        counts.update(feedback_stage.apply(conn, now))
        campaigns = _sound_campaigns(effective(conn, now), now)
        counts.update(enrolment.end_enrolments(conn, campaigns, now))
        counts["consents_withdrawn"] = sum(enrolment.withdraw_unanswered(conn, one, now) for one in campaigns)
    return counts


# ---------------------------------------------------------------- report and upkeep


def write_report(now: datetime, run_id: str, origin: str = "manual") -> Counts:
    """Write the report page; returns its figures."""
    with _recorded("report", "", now, run_id, origin) as counts, db.transaction() as conn:
        _, figures = report.write(conn, now, settings().home / "reports")
        counts.update(figures)
    return counts


def maintain(now: datetime, run_id: str, origin: str = "manual") -> Counts:
    """Close passages that are over; drop pages, and rows that have done their work (docs/upkeep.md). What explains a message stays."""
    with _recorded("maintain", "", now, run_id, origin) as counts, db.transaction() as conn:
        counts.update(enrolment.end_enrolments(conn, _sound_campaigns(effective(conn, now), now), now))
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
    with _recorded("watch_coupons", "", now, run_id, origin) as counts:
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


def validate() -> list[Fault]:
    """Every mistake in every file people edit: campaigns, segments, sources, calendar, templates, and what they name."""
    faults: list[Fault] = []

    def collect_faults(read: Callable[..., Any], *args: Any) -> Any:
        try:
            return read(*args)
        except InputError as error:
            faults.extend(error.faults)
            return None

    include = settings().include
    collect_faults(audience.load_segments, include / "segments")
    if days := collect_faults(load_calendar, include / "calendar.yml"):
        names = [Path(file).stem for file in campaign_files()]
        faults += campaign_checks.calendar_faults(include / "calendar.yml", days, names)
    faults += collect_faults(lambda: legal.faults(load_theme().shop.model_dump())) or []
    for own in sorted((include / "themes").glob("[!.]*.yml")):
        collect_faults(lambda shop=own.stem: load_theme(shop=shop))
    faults += loyalty_faults()
    pools = collect_faults(coupons.load_pools)
    found = [collect_faults(load_source, path) for path in sorted((include / "sources").glob("[!.]*.yml"))]
    collect_faults(identities.load_rules, None, [source.id for source in found if source])
    sound: dict[str, Campaign] = {}
    for file in campaign_files():
        campaign = collect_faults(load_campaign, Path(file))
        if campaign is None:
            continue
        sound[campaign.id] = campaign
        faults += campaign_checks.faults_of(Path(file), campaign) + coupons.pool_faults(campaign, pools or {})
    if days:  # names were looked at above, each at its line
        file = yamlfile.shown(include / "calendar.yml")
        faults += [
            Fault(file, 0, fault.key, fault.message)
            for fault in faults_in(days, sound)
            if not fault.message.startswith("there is no campaign")
        ]
    return faults


def advice() -> list[Fault]:
    """What is no mistake and still worth telling: languages in which a template has no words."""
    return [note for template in rendering.names() for note in mail_lint.missing_languages(template)]
