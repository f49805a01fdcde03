"""The days to come, one after the other: orders in, loyalty, happenings, segments, plans and their gates at five, then deliveries.

The stages are the real ones, in the order in which the DAGs run them. What is not simulated is said in `assumptions`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import Connection, Engine

from postlude import audience, consents, coupons, db, enrolment, flows, loyalty, pipeline, volume
from postlude.calendar import Calendar, effective, one_offs, steered
from postlude.campaign import Campaign, load_campaign
from postlude.errors import InputError
from postlude.loyalty_rules import load_loyalty
from postlude.quotas import load_quotas
from postlude.settings import settings
from postlude.simulate.log import Log
from postlude.simulate.rehearsal import NoChannel, Rehearsal

MORNING = timedelta(hours=5)  # UTC; the clock of the ingest DAG
BATCH = 2_000
ASSUMPTIONS = (
    "orders and returns arrive as punctually as ever: no feed is stale",
    "nobody clicks, answers, complains, unsubscribes or changes their consents; no other system tells anything",
    "what is recommended with what stays as it was worked out last",
    "every message is accepted; templates are not written, so none fails to be",
    "kill switches in force stay in force, and so do the campaign files",
    "the checks of the data gates pass; the volume gate and its canaries are asked as ever",
)


class Days:
    """One simulated stretch of days on a copy of the database."""

    def __init__(
        self, engine: Engine, first: datetime, until: datetime, calendar: Calendar | None, every: timedelta, grant: bool
    ) -> None:
        self.engine, self.first, self.until, self.every, self.grant = engine, first, until, every, grant
        self.log = Log(
            assumptions=[*ASSUMPTIONS, _held_back(grant), f"deliveries every {every.total_seconds() / 60:.0f} minutes"]
        )
        self._given = calendar
        self._segments = audience.load_segments(settings().include / "segments")
        self._files = [campaign for path in pipeline.campaign_files() if (campaign := _sound(path))]
        delivered = flows.delivered()
        self._off = {campaign.id: why for campaign in self._files if (why := flows.lacking(campaign, delivered))}
        self.log.assumptions += [f"{name} is off: it {why}" for name, why in self._off.items()]
        self._pools, self._quotas = coupons.load_pools(), load_quotas()
        self._boxes: dict[str, Rehearsal] = {}
        self._now = first

    def calendar_at(self, conn: Connection, now: datetime) -> Calendar:
        return self._given or effective(conn, now)

    def run(self, progress: Callable[[int, int], None] | None = None) -> None:
        mornings = list(self._mornings())
        now = self.first
        with self._timed("feeds") as conn:
            db.run(conn, "85_forget_feed_days")
        for number, morning in enumerate(mornings):
            self._deliver_until(now, min(morning, self.until))
            if morning < self.until:
                self._plan_all(morning)
            now = morning
            if progress:
                progress(number, len(mornings) - 1)
        self._take_stock(self.until)
        for box in self._boxes.values():
            box.close()

    def _mornings(self) -> Iterator[datetime]:
        """Five o'clock of every day, and the end."""
        at = datetime.combine(self.first.date(), datetime.min.time(), UTC) + MORNING
        at += timedelta(days=1) * (at < self.first)
        while at < self.until:
            yield at
            at += timedelta(days=1)
        yield self.until

    # ------------------------------------------------------------ the morning

    def _plan_all(self, now: datetime) -> None:
        self._take_stock(now)
        run = f"simulated/{now:%Y-%m-%d}"
        with self._timed("orders") as conn:
            db.run(conn, "85_tell_orders", now=now)
            db.run(conn, "85_feeds_are_fresh", now=now)
        with self._timed("features") as conn:
            audience.derive_features(conn, now, run)
        with self._timed("loyalty") as conn:
            if rules := load_loyalty():
                loyalty.update(conn, rules, now, run)
        with self._timed("happenings") as conn:
            pipeline.happen(conn, now)
        with self._timed("segments") as conn:
            audience.update_segments(conn, self._segments, now, run)
        with db.transaction(self.engine) as conn:
            plan = self.calendar_at(conn, now)
            coupons.declare(conn, self._pools, now)
            consents.remember_terms(conn)
        for campaign in self.campaigns(plan, now):
            self._plan(campaign, plan, now, f"{run}/{campaign.id}")

    def campaigns(self, plan: Calendar, now: datetime) -> list[Campaign]:
        sends = one_offs(plan, now)
        return [steered(campaign, plan) for campaign in self._files] + [
            campaign for campaign in sends if campaign.id not in {known.id for known in self._files}
        ]

    def _plan(self, campaign: Campaign, plan: Calendar, now: datetime, run: str) -> None:
        try:
            with self._timed("enrol") as conn:
                if campaign.id not in self._off:
                    enrolment.enrol(conn, campaign, now, run, calendar=plan)
                db.run(conn, "85_note_run", run_id=run, stage="enrol", subject=campaign.id, now=now)
        except InputError as error:  # its DAG is red, the others go on
            if (told := f"plans nothing: {error}") not in self.log.assumptions:
                self.log.assumptions.append(told)
            return
        with self._timed("schedule") as conn:
            enrolment.schedule(conn, campaign, plan, now, run)
            coupons.reserve(conn, campaign, now)
        with self._timed("gate") as conn:
            counts = volume.assess(conn, campaign, now, run)
            if not counts["approval"]:
                if canary := volume.put_off(conn, campaign, now, run)["canary"]:
                    self._gate(now, campaign, "canary", canary, None, [])
            elif counts["causes"] or self.grant:
                self._gate(now, campaign, "volume", counts["messages"], counts["people"], counts["causes"])
            enrolment.release(conn, campaign)
            if counts["approval"] and self.grant:
                volume.decide(conn, counts["approval"], True, "simulation", "cli", now, run)

    def _gate(
        self, now: datetime, campaign: Campaign, gate: str, messages: int, people: int | None, causes: list[str]
    ) -> None:
        self.log.gates.append(
            {
                "day": str(now.date()),
                "campaign": campaign.id,
                "gate": gate,
                "messages": messages,
                "people": people,
                "causes": causes,
            }
        )

    # ------------------------------------------------------------ the day

    def _deliver_until(self, now: datetime, end: datetime) -> None:
        """Passes on the grid, those left out in which nothing is due."""
        least, at = now, now
        while True:
            with self._timed("clock") as conn:
                due = db.run(conn, "85_next_due").one()
            nexts = [due.at, at + settings().canary_hold if due.canaries else None]
            found = min((instant for instant in nexts if instant is not None), default=None)
            if found is None:
                return
            steps = max(0, -(-(found - self.first) // self.every))  # up to the grid
            at = max(self.first + steps * self.every, least)
            if at >= end:
                return
            self._deliver(at)
            least = at + self.every

    def _deliver(self, now: datetime) -> None:
        self.log.passes += 1
        with self._timed("deliver") as conn:
            coupons.wake(conn, now)
            volume.expire_held(conn, now)
            failed = volume.watch_canaries(conn, now)["canaries_failed"]
            plan = self.calendar_at(conn, now)
            campaigns = self.campaigns(plan, now)
            for campaign in campaigns:
                if enrolment.must_move(conn, campaign, plan):
                    enrolment.schedule(conn, campaign, plan, now, f"simulated/{now:%Y-%m-%d}/{campaign.id}")
            due = [row.channel for row in db.run(conn, "40_channels_due", now=now)]
        self.log.gates += [{"day": str(now.date()), "campaign": told, "gate": "canary_failed"} for told in failed]
        self._now = now
        for channel in due:
            began = time.perf_counter()
            box = self._box(channel)
            box.rehearse(campaigns, plan)
            self.log.spent("deliver", time.perf_counter() - began)
            self.log.put_off += [(now.date(), *put_off) for put_off in box.put_off]

    def _box(self, channel: str) -> Rehearsal:
        if channel not in self._boxes:
            self._boxes[channel] = Rehearsal(
                engine=self.engine, channel=NoChannel(), url="", campaigns=[], calendar=Calendar.model_construct(),
                clock=lambda: self._now, worker="simulation", batch=BATCH, channel_name=channel, lanes=2, quotas=self._quotas, fresh=[],
            )  # fmt: skip
        return self._boxes[channel]

    def _take_stock(self, now: datetime) -> None:
        day = str((now - timedelta(microseconds=1)).date())
        with self._timed("coupons") as conn:
            for pool in coupons.stock(conn, now):
                self.log.stock.append(
                    {"day": day, "pool": pool["pool"], "left": pool["left"], "short": pool["waiting"]}
                )

    @contextmanager
    def _timed(self, what: str) -> Iterator[Connection]:
        began = time.perf_counter()
        with db.transaction(self.engine) as conn:
            yield conn
        self.log.spent(what, time.perf_counter() - began)


def _sound(path: str) -> Campaign | None:
    """A broken file sends nothing until it is mended, here as there."""
    try:
        return load_campaign(Path(path))
    except InputError:
        return None


def _held_back(grant: bool) -> str:
    if grant:
        return "what the volume gate holds is approved at once by a person who looks at it every morning"
    return "nobody approves what the volume gate holds: it expires"
