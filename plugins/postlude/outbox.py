"""The outbox: claim, render, hand over, settle; and recovery of what a dead worker left behind.

Three transactions, and no lock is held across a socket: the claim of a batch re-reads every rule (42_claim.sql), the intent is
durable before the final dot (44_intend.sql), the settlement only touches the worker's own claim (45_settle.sql). With several
connections (lanes.py) intents and settlements are committed in groups (ledger.py), and the next batch is claimed meanwhile.
"""

from __future__ import annotations

import gc
import logging
import select
import sys
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Protocol
from uuid import UUID

from sqlalchemy import Connection, Engine, Row, text

from postlude import db, freshness, pace, switch, written
from postlude.breaker import Breaker
from postlude.calendar import Calendar
from postlude.campaign import Campaign
from postlude.channels import INTEND, Channel, Send
from postlude.claims import ClaimOutdated
from postlude.errors import InputError
from postlude.lanes import Lanes
from postlude.ledger import Intent, Ledger, Settlement
from postlude.loop import Loop
from postlude.message import Message, Outcome, frozen
from postlude.quotas import Quotas
from postlude.retries import blameless, next_try
from postlude.settings import settings
from postlude.written import AHEAD, Mail, Written

log = logging.getLogger(__name__)

Clock = Callable[[], datetime]

# judging the feeds costs more than judging a batch, and they do not go stale within a minute
FEEDS_KEPT = timedelta(minutes=1)
# so many failures of the relay in a row end the run; fewer where there are fewer connections
MANY = 5

# a batch is a hundred rows of a million: each is found by an index, also where the table was empty when the plan was made.
# To plan anew costs as much as the batch
WALK = text(
    "select set_config('random_page_cost', '1.1', true), set_config('enable_sort', :sort, true), "
    "set_config('enable_bitmapscan', :sort, true), set_config('enable_seqscan', 'off', true), "
    "set_config('plan_cache_mode', 'force_generic_plan', true)"
)


@dataclass(eq=False, slots=True)
class Parcel:
    """A message ready to be handed over, with what it came from."""

    claim: Row[Any]
    provider: str
    message: Message
    raw: bytes
    intent: Intent


class Progress(Protocol):
    """Told after every batch: messages looked at so far."""

    def __call__(self, done: int, /) -> None: ...


@dataclass
class Outbox:
    """One worker's delivery of one channel.

    clock: the wall clock of the run (UTC). A batch is judged as of one reading of it, and each intent reads it again, so
    that a slow run cannot send what expired meanwhile.
    calendar_at: asked before each batch for the calendar of that instant; None: `calendar` holds for the whole delivery.
    lanes: connections at once, each in a thread of its own; with one everything happens in the caller's thread.
    """

    engine: Engine
    channel: Channel
    url: str
    campaigns: list[Campaign]
    calendar: Calendar
    clock: Clock
    worker: str
    shard: int = 0
    shards: int = 1
    batch: int = 100
    channel_name: str = "email"
    stop_file: Path = field(default_factory=switch.stop_file)
    lanes: int = 1
    quotas: Quotas = field(default_factory=Quotas)
    calendar_at: Callable[[Connection, datetime], Calendar] | None = None
    counts: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    _stops: list[switch.Stop] = field(default_factory=list)
    _stale: tuple[datetime, list[str]] | None = None
    _failures: int = 0  # of the relay, without a success between
    _counting: Any = field(default_factory=threading.Lock)
    stopped: threading.Event = field(default_factory=threading.Event)
    _stopper: threading.Thread | None = None
    _crew: Any = None  # the Lanes of the delivery under way

    def __post_init__(self) -> None:
        self._breaker = Breaker(self.engine, self.channel_name, self.clock)
        self._pace = pace.Pace(self.engine, self.channel_name, self.clock, self.lanes)
        self._ledger = Ledger(self.engine, self.worker, self.clock, settings().lease, self._obey, self._told)

    def deliver(self, progress: Progress | None = None, limit: int | None = None) -> dict[str, int]:
        """Hand over everything due; returns counts by state and `state:reason`.

        Stops early when the relay or the configuration is at fault (counted as `relay_down`): what was claimed goes back,
        no attempt is used up. A relay that fails again and again is left alone for a while (breaker.py): nothing is claimed.
        """
        self._demand_durable_commits()
        if not self._breaker.may_try():
            self.counts["relay_down"] = 1
            return dict(self.counts)
        # what is there now stays, and what a message leaves is freed without: to look for rings in it costs much and finds none
        rings, turns = gc.get_threshold(), sys.getswitchinterval()
        # the ledger's thread has little to do, and all connections wait for it: it need not wait for a dozen mails to be written
        sys.setswitchinterval(0.001)
        gc.freeze()
        gc.set_threshold(500_000, *rings[1:])
        try:
            with self._lanes() as self._crew:
                self._turns_of_ghosts()
                self._deliver(progress, limit)
            if self._stopper:
                self._stopper.join(30)
            self._ledger.flush()
        finally:
            self._ledger.close()
            gc.set_threshold(*rings)
            gc.unfreeze()
            sys.setswitchinterval(turns)
        return dict(self.counts)

    def _deliver(self, progress: Progress | None, limit: int | None) -> None:
        done = idle = 0
        crew = self._crew
        while not self.stopped.is_set() and not crew.stopped and (limit is None or done < limit):
            size = 1 if self._breaker.probing else self.batch
            claimed = self.claim(size if limit is None else min(size, limit - done))
            idle = 0 if claimed else idle + 1
            if claimed is None and crew.busy:  # what is under way may come back at once
                crew.wait()
                self._ledger.flush()
                continue
            if claimed is None or idle > 5:  # due, yet locked by somebody else for long: the next run has them
                break
            done += len(claimed)
            mine = [c for c in claimed if c.state == "sending"]
            crew.put(self._mails(mine))
            # the next batch is claimed while this one goes out
            crew.wait(0 if self._breaker.probing else self.batch)
            if progress:
                progress(done)
        crew.wait()
        # claimed while the lanes were stopped
        self._release(crew.stop(), "the worker stopped")

    def _lanes(self) -> Lanes[Mail]:
        """Who hands over: one thread for all connections where the channel can do so, else one for each."""
        sessions = getattr(self.channel, "sessions", None)
        flush, ready = self._ledger.flush, lambda mail: self._pace.begin(self._provider(mail))
        if sessions and self.lanes > 1 and hasattr(select, "epoll"):

            def intend(parcels: list[Parcel]) -> None:
                self._ledger.intend(*[parcel.intent for parcel in parcels])

            return Loop[Mail, Parcel](
                self.lanes,
                sessions(self.url),
                self._prepare,
                self._conclude,
                intend,
                INTEND,
                flush,
                ready,
                self._write_ahead,
                AHEAD,
            )
        return Lanes(self.lanes, lambda: self.channel.connect(self.url), self._hand_over, flush, ready)

    def stop(self) -> None:
        """Finish what is under way, release what was claimed and not begun, and end. Safe to call from a signal handler."""
        if self._stopper is None:
            self._stopper = threading.Thread(target=self._stop, name="stop", daemon=True)
            self._stopper.start()

    def _stop(self) -> None:
        self.stopped.set()
        if self._crew:
            self._release(self._crew.stop(), "the worker was told to stop")

    def _release(self, mails: list[Mail], why: str) -> None:
        for mail in mails:
            self._settle(mail.claim, Outcome("released", reply=why))

    def _demand_durable_commits(self) -> None:
        """Without them a crash of the database forgets intents, and what was sent would be sent again."""
        with db.transaction(self.engine) as conn:
            if conn.scalar(text("select current_setting('synchronous_commit')")) in ("off", "local"):
                raise InputError(
                    "synchronous_commit is off for this database connection; switch it on before anything is sent"
                )

    # ------------------------------------------------------------ claim

    def claim(self, batch: int) -> list[Row[Any]] | None:
        """Judge what is due for the customers of up to `batch` due messages; rows (message_id, state, reason, attempt).

        Those in `sending` are ours to send. None: nothing is due; empty: others have judged it meanwhile, ask again.
        """
        now = self.clock()
        live, shops = self._live(now)
        mail = {"channel": self.channel_name, "campaigns": [c.id for c in live], "now": now}
        with db.transaction(self.engine) as conn:
            self.quotas.lock(conn, self.channel_name, now)
            db.tell_now(conn, now)
            # in the order of the index until the batch is full: the planner would sort all that is due, for every batch
            conn.execute(WALK, {"sort": "off"})
            people = sorted(set(
                db.run(
                    conn, "40_lock_due", **mail, stopped_shops=[stop.name for stop in shops],
                    silent_shops=[stop.name for stop in shops if stop.transactional_too], batch=batch, shard=self.shard,
                    shards=self.shards,
                ).scalars()
            ))  # fmt: skip
            conn.execute(WALK, {"sort": "on"})
            if not people:
                return None
            due = list(db.run(conn, "41_lock_messages", **mail, people=db.array(people)).scalars())
            db.run(conn, "48_reserve_coupons", campaign=None, ids=db.array(due), now=now)
            judged = self._judge(conn, live, due, now)
            no_place = self.quotas.share_out(
                conn, self.channel_name, [row.message_id for row in judged if row.state == "sending"], now
            )
        if no_place:
            judged = [_put_off(row) if row.message_id in no_place else row for row in judged]
        with self._counting:
            for row in judged:
                if row.state != "sending":
                    self.counts[row.state if row.state != "scheduled" else "put_off"] += 1
                    self.counts[f"{row.state}:{row.reason}"] += 1
        return judged

    def _live(self, now: datetime) -> tuple[list[Campaign], list[switch.Stop]]:
        """Campaigns that may send now, and the stops of single shops; reads the switches anew."""
        with db.transaction(self.engine) as conn:
            self._stops = switch.in_force(conn, self.stop_file)
            if self.calendar_at:
                self.calendar = self.calendar_at(conn, now)
        live = [
            c
            for c in self.campaigns
            if not self.calendar.paused(c.id, c.kind, now)
            and not any(stop.covers(c.id, self.channel_name, None, c.kind) for stop in self._stops)
        ]
        return live, [stop for stop in self._stops if stop.scope == "shop"]

    def _judge(
        self, conn: Connection, live: list[Campaign], ids: list[UUID], now: datetime, ghosts: bool = False
    ) -> list[Row[Any]]:
        """Read every rule for these messages; ghosts: for the ghosts among them, with the others as competitors."""
        windows = []
        for campaign in live:
            window = self.calendar.window_on(self.channel_name, campaign.id)
            days = self.calendar.weekday_numbers(campaign.id)
            resumed = self.calendar.resumed(campaign.id, campaign.kind, now)
            windows.append(
                {
                    "campaign_id": campaign.id,
                    "opens": window.opens,
                    "closes": window.closes,
                    "weekdays": days,
                    "resumed": resumed,
                }
            )
        pressure = self.calendar.pressure_in_force
        return db.light(
            db.run(
                conn, "42_claim", ids=db.array(ids), worker=self.worker, now=now, windows=db.dumps(windows),
                blackouts=self.calendar.blackouts, holidays=db.dumps(self.calendar.holidays_around(now, timedelta(0))),
                stale_feeds=self._stale_feeds(conn, now), rules=db.dumps(pressure.rules),
                reach=pressure.reach, when_full=pressure.when_full, spread=self.calendar.spread, ghosts=ghosts,
            )
        )  # fmt: skip

    def _stale_feeds(self, conn: Connection, now: datetime) -> list[str]:
        if self._stale is None or not self._stale[0] <= now < self._stale[0] + FEEDS_KEPT:
            self._stale = (now, freshness.stale_feeds(conn, now))
        return self._stale[1]

    def _turns_of_ghosts(self, batch: int = 1000) -> None:
        """When the control group would have had its turn (docs/effect.md); before the real messages, which they compete with.

        Ghosts are in a table of their own and have no way to the channel.
        """
        now = self.clock()
        live, shops = self._live(now)
        while True:
            with db.transaction(self.engine) as conn:
                rows = db.run(
                    conn, "42_ghosts_due", channel=self.channel_name, campaigns=[c.id for c in live], now=now, batch=batch,
                    stopped_shops=[stop.name for stop in shops], shard=self.shard, shards=self.shards,
                ).all()  # fmt: skip
                if not rows:
                    return
                self._judge(conn, live, [row.message_id for row in rows], now, ghosts=True)

    # ------------------------------------------------------------ hand over

    def _mails(self, claims: list[Row[Any]]) -> list[Mail]:
        if not claims:
            return []
        with db.transaction(self.engine) as conn:
            conn.execute(WALK, {"sort": "on"})
            return written.read(conn, claims, self.channel_name, self.clock())

    def _hand_over(self, send: Send, mail: Mail) -> None:
        if not (parcel := self._prepare(mail)):
            return

        def intend() -> None:
            self._ledger.intend(parcel.intent)
            if refusal := parcel.intent.refusal:
                raise refusal

        try:
            outcome = send(parcel.message, parcel.raw, intend)
        except BaseException:
            self._pace.end(parcel.provider)
            raise
        self._conclude(parcel, outcome)

    def _prepare(self, mail: Mail) -> Parcel | None:
        """The message as it will be handed over. None: it will not be, and that is settled."""
        provider = self._provider(mail)
        parcel = None
        try:
            parcel = self._pack(provider, mail)
        finally:
            if parcel is None:
                self._pace.end(provider)
        return parcel

    def _pack(self, provider: str, mail: Mail) -> Parcel | None:
        claim, letter = mail.claim, mail.letter
        if self._stops and (known := self._stop_of(letter, self._stops)):
            self._release_stopped(claim, str(known))
            return None
        if later := self._pace.take(provider):
            self._finish(claim, "scheduled", "provider_pace", provider, None, later, more_attempts=1)
            return None
        mail.write(self.clock())
        if isinstance(mail.written, InputError):
            # the file is at fault, not the person: nothing is lost while somebody mends it
            self.faults.append(str(mail.written))
            again = self.clock() + timedelta(hours=1)
            self._finish(claim, "scheduled", "template_fault", str(mail.written), None, again, more_attempts=1)
            return None
        if not isinstance(mail.written, Written):
            # this one person cannot get this message; everybody else can
            outdated = isinstance(mail.written, ClaimOutdated)
            self._finish(claim, "skipped", "claim_outdated" if outdated else "cannot_render", str(mail.written), None)
            return None
        message, coupon, raw, content_hash = mail.written
        intent = Intent(claim, letter, content_hash, coupon)
        if letter.kind == "transactional" and not letter.kept_letter:
            intent.keep = {"letter": db.dumps(frozen(message)), "raw": bytes(raw)}
        return Parcel(claim, provider, message, raw, intent)

    def _write_ahead(self, mails: Sequence[Mail], following: Sequence[Mail]) -> bool:
        """Write these mails, and while at it the following. False: these are written, or cannot be."""
        if all([mail.tried for mail in mails]):
            return False
        written.write_all((*mails, *following), self.clock())
        return True

    def _conclude(self, parcel: Parcel, outcome: Outcome) -> None:
        """Settle what became of a hand-over, and learn from it."""
        provider = parcel.provider
        self._pace.end(provider)
        if parcel.intent.stop:
            self._release_stopped(parcel.claim, parcel.intent.stop)
            return
        self._settle(parcel.claim, outcome)
        if outcome.scope in ("relay", "configuration"):
            self._trouble(outcome)
        elif outcome.kind != "released":
            self._failures = 0
            self._breaker.works()
        if outcome.kind == "accepted":
            self._pace.faster(provider)
        elif (outcome.kind, outcome.scope) == ("deferred", "policy"):  # 421 4.7.x and its kin
            self._pace.slower(provider)

    def _trouble(self, outcome: Outcome) -> None:
        """The relay did not take a message and is to blame: a single connection rests, several in a row end the run."""
        with self._counting:
            self._failures += 1
            over = outcome.scope == "configuration" or self._failures >= min(self.lanes, MANY)
        if not self._breaker.failed(outcome.reply, at_once=outcome.scope == "configuration") and not over:
            self._crew.pause(1.0)
            return
        self._release(self._crew.stop(), "the relay was down")
        with self._counting:
            first = not self.counts["relay_down"]
            self.counts["relay_down"] = 1
        if first:
            log.warning("%s: the relay does not take mail: %s", self.worker, outcome.reply)

    def _obey(self, intents: list[Intent], conn: Connection | None) -> None:
        """Mark those that a switch stops: the file's before each group of dots, and all of them where the database refused."""
        if conn is None:
            stops = switch.stops_in_file(self.stop_file)
        else:  # whatever else is claimed under the same stop is released without being tried
            self._stops = stops = switch.in_force(conn, self.stop_file)
        for intent in intents if stops else ():
            intent.stop = str(self._stop_of(intent.letter, stops) or "")

    def _provider(self, mail: Mail) -> str:
        """The mailbox provider whose pace counts; other channels have one provider, their own."""
        return pace.family(mail.letter.email) if self.channel_name == "email" else self.channel_name

    def _stop_of(self, letter: Row[Any], stops: list[switch.Stop]) -> switch.Stop | None:
        """The stop among `stops` that covers this message."""
        of = (letter.campaign_id, self.channel_name, letter.source_id, letter.kind)
        return next((stop for stop in stops if stop.covers(*of)), None)

    def _release_stopped(self, claim: Row[Any], stop: str) -> None:
        """Back to scheduled, as if never claimed; once the stop is lifted it is judged anew."""
        self._finish(claim, "scheduled", "stopped", f"stopped: {stop}", None, self.clock(), more_attempts=1)

    def _settle(self, claim: Row[Any], outcome: Outcome) -> None:
        now = self.clock()
        state, reason, send_at, more = "sent", None, None, 0
        if outcome.kind == "accepted":
            pass
        elif outcome.kind == "ambiguous":
            state, reason = "unknown", "answer_lost"
        elif outcome.kind == "refused":
            state, reason = "failed", f"refused_{outcome.scope}"
        else:
            wait = next_try(outcome, claim.attempt, claim.max_attempts, claim.message_id)
            state, reason, more = "scheduled", "not_now", int(blameless(outcome))
            if wait is None:
                state, reason = "failed", "mailbox_full" if outcome.tries else "attempts_used_up"
            else:
                send_at = now + wait
        self._finish(claim, state, reason, outcome.reply or None, outcome, send_at, more)

    def _finish(
        self,
        claim: Row[Any],
        state: str,
        reason: str | None,
        detail: str | None,
        outcome: Outcome | None,
        send_at: datetime | None = None,
        more_attempts: int = 0,
    ) -> None:
        fields = {
            "state": state, "reason": reason, "detail": detail, "provider_id": outcome.provider_id if outcome else None,
            "outcome": outcome.kind if outcome else "released", "scope": outcome.scope if outcome else None,
            "reply": outcome.reply if outcome else None, "send_at": send_at, "more_attempts": more_attempts,
        }  # fmt: skip
        # alone, nobody commits it with an intent of theirs: then it is now. What a stopped worker gives back goes as a whole
        wait = self.lanes == 1 and not (self._crew and self._crew.stopped)
        self._ledger.settle(Settlement(claim, fields, bool(outcome and outcome.suppress)), wait=wait)

    def _told(self, settlement: Settlement) -> None:
        state, reason = settlement.fields["state"], settlement.fields["reason"]
        with self._counting:
            if not settlement.settled:
                self.counts["lost_claim"] += 1
            else:
                self.counts[state] += 1
                if reason:
                    self.counts[f"{state}:{reason}"] += 1
        if not settlement.settled:
            lost = settlement.claim.message_id
            log.warning("%s: settling %s came too late; its claim had been recovered", self.worker, lost)


def _put_off(row: Any) -> Any:
    """The row of a claim that found no place."""
    return row._replace(state="scheduled", reason="quota")


def recover(engine: Engine, now: datetime) -> dict[str, int]:
    """Take back the claims of workers that are gone: released when nothing was handed over, else unknown."""
    with db.transaction(engine) as conn:
        return dict(db.run(conn, "46_recover", now=now, lease=settings().lease).mappings().one())


def send_again(engine: Engine, now: datetime) -> dict[str, int]:
    """Transactional messages that are unknown for ten minutes without evidence are due again, at most twice."""
    with db.transaction(engine) as conn:
        counts = dict(db.run(conn, "46_send_again", now=now).mappings().one())
        db.run(conn, "46_forget_letters")
    return counts
