"""A year of a shop under a virtual clock: the real stages on the real database, with everything that can go wrong.

One seed decides everything. What is true is kept in `shop`, what went out in `post`, and `oracle` holds both against the
database: at every claim and every final dot, after every recovery, and every simulated day.
"""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, time, timedelta
from hashlib import sha256
from pathlib import Path
from time import monotonic, process_time
from typing import Any
from uuid import UUID

from sqlalchemy import URL, Engine, create_engine, event, text

from postlude import audience, coupons, db, enrolment, feedback, outbox, switch, volume
from postlude.calendar import Blackout, Calendar, Cap, Pause, Pressure, Window, load_calendar
from postlude.campaign import Campaign
from simulator.crew import Crew, Hazards, Worker, worker
from simulator.feed import Feed
from simulator.oracle import Claim, Oracle
from simulator.post import CALM, Post
from simulator.setup import Setup
from simulator.shop import DAY, HOUR, Shop
from world import INCLUDE

NONE = Hazards(0, 0, 80)
LATE = timedelta(hours=36)  # a run of an earlier instant is history (max_past of the settings)


@dataclass
class Story:
    """What a run was like: how often each situation happened, what became of the feedback mails, and two fingerprints."""

    counts: dict[str, int]
    outcomes: dict[str, int]
    database: str
    ledger: str


@dataclass
class Year:
    """One simulated stretch of time."""

    setup: Setup
    engine: Engine
    folder: Path
    now: datetime = field(init=False)
    count: int = 0

    def __post_init__(self) -> None:
        setup = self.setup
        self.now, self.seed = setup.start, setup.seed
        self.random = random.Random(f"{self.seed}/year")
        self.engine = _warm(self.engine.url)
        self.shop = Shop(
            self.seed, setup.start, setup.days, setup.customers, 14, setup.outages(), setup.again / 1000, setup.pace
        )  # fmt: skip
        self.campaigns = setup.campaigns(self.folder)
        cap = Cap.model_validate({"most": setup.most, "within": "7 days"})
        self.calendar = load_calendar(INCLUDE / "calendar.yml").model_copy(
            update={"occasions": setup.occasions(), "pressure": Pressure(caps=(cap,))}
        )
        self.oracle = Oracle(self.engine, self.shop, {}, self.where)
        self.oracle.files = {name: [campaign] for name, campaign in self.campaigns.items()}
        self.crew = Crew(self.shop, self.seed, setup.hazards, self._saw)
        self.post = Post(
            self.shop, self.seed, setup.mixture, lambda: self.now, lambda: self.count, self._at_the_post,
            lambda: self.crew.current.worker if self.crew.current else "", self.oracle.dot, self.oracle.stored, down=setup.relay_down(),
        )  # fmt: skip
        self.crew.settled, self.crew.written = self.post.settle, self.post.write
        self.segments = audience.load_segments(INCLUDE / "segments")
        self.switches: list[tuple[datetime, str, str]] = []
        self.asleep_until = setup.start
        self.passes = 0
        self.answers: dict[int, datetime] = {}
        self.codes = 0

    # ------------------------------------------------------------ time

    def clock(self) -> datetime:
        """Every look at the clock takes a moment; a worker that reads it knows its own last reading."""
        self.now += timedelta(milliseconds=self.random.randrange(1, 300))
        self.count += 1
        self.read = self.now
        return self.now

    @property
    def calm(self) -> bool:
        return self.now >= self.setup.calm_from

    def chance(self, of_a_thousand: float) -> bool:
        return not self.calm and self.random.random() * 1000 < of_a_thousand

    def where(self) -> str:
        setup, day = self.setup, (self.now - self.setup.start).days
        return f"day {day}, {self.now:%Y-%m-%d %H:%M}, POSTLUDE_SIM_SEED={self.seed}, {setup.customers} customers, {setup.days} days"

    @contextmanager
    def transaction(self) -> Iterator[Any]:
        with self.engine.begin() as conn:
            yield conn
        self.count += 1

    # ------------------------------------------------------------ the run

    def run(self) -> Story:
        self._keep_house_by_the_calendar()
        self.feed = Feed(self.engine)
        try:
            self.oracle.customers = self.feed.open_shop(self.shop, self.now - 300 * DAY)
            for person in self.shop.people:
                self.oracle.mean(self.campaigns["loyalty_join"], person, "once")
            for occasion in self.calendar.occasions:
                for person in self.shop.people:
                    self.oracle.mean(
                        self.campaigns["spring"], person, f"occasion:spring:{occasion.date}", day=occasion.date
                    )
            self._import_codes(self.setup.codes)
            for day in range(self.setup.days):
                self._day(self.setup.start + day * DAY, day)
            return self._end()
        finally:
            self.feed.close()
            self.oracle.close()
            self.engine.dispose()

    def _keep_house_by_the_calendar(self) -> None:
        """The server does not look after our tables when a minute of the machine is over, but on days of the year: plans hang on
        it, the order of rows on plans, and the course of a year on that order. So a seed replays it."""
        switch_off = (
            "do $$ declare t regclass; begin for t in select oid from pg_class where relkind = 'r' and relnamespace = "
            "'postlude'::regnamespace loop execute 'alter table ' || t || ' set (autovacuum_enabled = off)'; end loop; end $$"
        )
        with self.engine.begin() as conn:
            conn.exec_driver_sql(switch_off)

    def _keep_house(self, number: int) -> None:
        """What a server does by itself while it has nothing else to do: temporary tables come and go in the catalog all day."""
        if number % 10 == 9:
            with self.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
                conn.exec_driver_sql("vacuum")

    def _day(self, midnight: datetime, number: int) -> None:
        self.now = max(self.now, midnight + 3 * HOUR)
        self._keep_house(number)
        self._change_settings(number)
        if self.chance(12):
            self.asleep_until = midnight + self.random.randint(2, 8) * DAY
            self.shop.count("everything paused for days")
        self.now = max(self.now, midnight + 4 * HOUR)
        if self.now >= self.asleep_until or self.calm:
            self._ingest()
            self._plan_all(number)
            self._answer_approvals()
            self._deliver_through(midnight)
        self.now = max(self.now, midnight + 23.5 * HOUR)
        self._maintain(number)

    def _end(self) -> Story:
        self.oracle.honest(self.post, None)
        self.oracle.orders(None)
        self.oracle.quiet(self.now)
        outcomes = self.oracle.complete(self.post, self.campaigns["feedback_30d"], self.now)
        return Story(
            dict(sorted(self.shop.happened.items())),
            dict(sorted(outcomes.items())),
            self._fingerprint(),
            self._ledger(),
        )

    # ------------------------------------------------------------ orders in, segments, plans

    def _ingest(self) -> None:
        facts = self.shop.deliver(self.now)
        if not facts:
            self.shop.count("a day without a delivery")
            return
        if self.shop.happened.get("row held back by an outage") and len(facts) > 300:
            self.shop.count("everything at once after an outage")
        self.oracle.learn(facts, self.campaigns)
        self.feed.land(facts, self.now)
        self.count += 1
        self.oracle.orders({fact.order.key for fact in facts} if len(facts) < 3000 else None)

    def _plan_all(self, number: int) -> None:
        now = self.now
        even = (
            number % 2 == 0
        )  # segments and what hangs on them every other day: selection is by state, a skipped day loses nobody
        if even:
            with self.transaction() as conn:
                audience.derive_features(conn, now, f"day{number}")
                audience.update_segments(conn, self.segments, now, f"day{number}")
        order = list(self.campaigns.values())
        self.random.shuffle(order)
        for campaign in order:
            if campaign.trigger.reads_features and (not even or self.chance(250)):
                continue
            if campaign.id == "feedback_30d" and self.random.random() < 0.5:
                continue
            if campaign.id == "spring" and not any(
                0 <= (now.date() - day.date).days < 12 for day in self.calendar.occasions
            ):
                continue
            self.plan(campaign, now)
            if self.chance(30):
                self._again(campaign, now)
        if self.chance(60):
            self._backfill()

    def plan(self, campaign: Campaign, now: datetime, wall: datetime | None = None) -> dict[str, Any]:
        """One run of a campaign's DAG as of `now`, as the pipeline does it; wall: set when it is a run over the past."""
        run = f"{campaign.id}:{now:%Y-%m-%d %H:%M}"
        with self.transaction() as conn:
            counts = enrolment.enrol(conn, campaign, now, run, history_before=wall, calendar=self.calendar)
        with self.transaction() as conn:
            counts |= enrolment.schedule(conn, campaign, self.calendar, wall or now, run)
            counts |= coupons.reserve(conn, campaign, wall or now)
        with self.transaction() as conn:
            counts |= volume.assess(conn, campaign, now, run)
            if not counts["approval"]:
                counts |= volume.put_off(conn, campaign, now, run)
            counts |= enrolment.release(conn, campaign)
        if campaign.id == "spring":
            self.oracle.demand(
                counts["released"] <= 40, "I18", f"{counts['released']} messages of spring were released unasked"
            )
            self.oracle.allowed["spring"] = self.oracle.allowed.get("spring", 0) + counts["released"]
        if counts["approval"]:
            self.shop.count("plan held for an approval")
        if counts.get("reasons", {}).get("feed_stale"):
            self.shop.count("nobody enrolled: feed stale")
        self.shop.count(f"planned {campaign.id}", counts["planned"])
        if wall is None:
            self.oracle.planned_at.setdefault(campaign.id, []).append(now)
        return counts

    def _again(self, campaign: Campaign, now: datetime) -> None:
        """A cleared run: the same instant once more adds nothing."""
        before = self._size()
        again = self.plan(campaign, now)
        self.oracle.demand(
            again["planned"] == 0 and again.get("enrolled", 0) == 0, "I14", f"{campaign.id} planned again adds {again}"
        )
        self.oracle.demand(
            self._size() == before, "I14", f"{campaign.id} planned again: {before} rows became {self._size()}"
        )
        self.shop.count("plan cleared and run again")

    def _backfill(self) -> None:
        """Runs over the past in any order: history, never a mail."""
        days = [self.random.randint(1, 60) for _ in range(3)]
        campaign = self.random.choice(list(self.campaigns.values()))
        copies = sum(self.post.copies.values())
        for back in days:
            past = self.now - back * DAY
            if past > self.setup.start and not (campaign.trigger.reads_features and self.now - past <= LATE):
                self.plan(campaign, past, self.now if self.now - past > LATE else None)
                self.shop.count("backfill of a past day")
        assert sum(self.post.copies.values()) == copies

    def _size(self) -> tuple[int, ...]:
        return tuple(self.oracle.ask("select (select count(*) from enrolments), (select count(*) from messages)")[0])

    def _answer_approvals(self) -> None:
        """A person looks at open requests: says yes, yes to a part, no, or nothing at all until it is too late."""
        with self.transaction() as conn:
            waiting = volume.approvals(conn, self.now, only_open=True)
            for asked in waiting:
                lot = self.random.random() if not self.calm else 0
                if lot < 0.6:
                    done = volume.decide(conn, asked.approval_id, True, "ana", "cli", self.now, "answer")
                elif lot < 0.7:
                    done = volume.decide(conn, asked.approval_id, True, "ana", "cli", self.now, "answer", at_most=25)
                elif lot < 0.78:
                    done = volume.decide(conn, asked.approval_id, False, "ana", "cli", self.now, "answer")
                else:
                    self.shop.count("approval left open")
                    continue
                self.shop.count("approval answered")
                known = self.oracle.allowed.get(asked.campaign_id, 0)
                self.oracle.allowed[asked.campaign_id] = known + done["released"]
        self.count += 1

    # ------------------------------------------------------------ delivery

    def _deliver_through(self, midnight: datetime) -> None:
        """Hourly passes, but only when something may be due; reports are collected once or twice a day."""
        hours = self.setup.hours
        last = midnight + DAY >= self.setup.start + self.setup.days * DAY  # then everything must come to rest
        if self.setup.passes and not last:
            hours = tuple(sorted(self.random.sample(hours, self.setup.passes)))
        noon = min(2, len(hours) // 2)
        told = self.setup.noon_feed == 1000 or self.random.random() * 1000 < self.setup.noon_feed
        for hour in hours:
            if midnight + hour * HOUR <= self.now:
                continue
            if told and hour == hours[noon] and (self.now >= self.asleep_until or self.calm):
                self.now = midnight + hour * HOUR
                self._ingest()  # facts that no plan has seen: the claim must see them
            if hour in hours[noon::3]:
                self.now = midnight + hour * HOUR
                self._feedback()
            due = self.oracle.ask(
                "select min(send_at), count(*) filter (where state = 'sending'), count(*) filter (where send_at <= :at) "
                "from messages where state in ('scheduled', 'sending')", at=midnight + hour * HOUR,
            )[0]  # fmt: skip
            idle = self.crew.zombies and self.chance(100)
            if not idle and not due[1] and (due[0] is None or due[0] > midnight + hour * HOUR):
                continue
            self.now = max(self.now, midnight + hour * HOUR)
            pairs = self.setup.pairs if due[2] > 3 else 0.2
            self.deliver(2 if pairs == 1 or self.random.random() < pairs else 1)

    def deliver(self, workers: int = 2) -> None:
        self.passes += 1
        began = self.now
        if self.chance(950) or self.calm:  # now and then nobody has recovered yet
            outbox.recover(self.engine, self.now)
            outbox.send_again(self.engine, self.now)
            self.oracle.after_recovery(self.now)
        with self.transaction() as conn:
            self._lift_switches(conn)
            coupons.wake(conn, self.now)
        self.crew.hazards = NONE if self.calm else self.setup.hazards
        self.post.mixture = CALM if self.calm else self.setup.mixture
        self.crew.run([self._worker(f"w{self.passes}{letter}") for letter in "ab"[:workers]])
        if self.oracle.allowed:
            self._watch()
        if self.chance(40):
            before = len(self.post.dots), self.now
            self.now = began
            zombies, self.crew.zombies, hazards, self.crew.hazards = self.crew.zombies, [], self.crew.hazards, NONE
            self.crew.run([self._worker(f"w{self.passes}again")])
            self.crew.zombies, self.crew.hazards, self.now = zombies, hazards, max(self.now, before[1])
            self.shop.count("delivered again at the same instant")

    def _worker(self, name: str) -> Worker:
        return worker(
            self.crew, name, self.clock, engine=self.engine, channel=self.post, campaigns=list(self.campaigns.values()),
            calendar=self.calendar, batch=self.random.choice(self.setup.batches), stop_file=self.folder / "STOP",
        )  # fmt: skip

    def _saw(self, seen: Worker, judged: list[Any]) -> None:
        self.count += 1
        for row in judged:
            if row.state == "sending":
                self.oracle.claimed(
                    row.message_id, Claim(self.read, self.count, seen.worker, seen.calendar), self.campaigns
                )
            else:
                self.shop.count(f"{row.state}: {row.reason}")

    def _at_the_post(self, name: str, message: Any) -> None:
        """Between two lines of a worker the world goes on."""
        self.count += 1
        if name == "before the intent" and not self.calm:
            person = self.shop.at_address[message.recipient.address][0]
            if self.chance(person.touchy * self.setup.unrest):
                self._unsubscribe(message.message_id, message.recipient.address)
            if self.chance(1.5):
                self._throw_switch(message.campaign_id)
            if self.chance(3):
                self.now += timedelta(minutes=self.random.choice((1, 5, 16, 70)))
        self.crew.point(name)

    def _unsubscribe(self, message: UUID, address: str) -> None:
        """The public page, by the link in the last mail that came (one transaction); who has got none yet says so to a person."""
        link = self.post.got.get(address)
        event = {"kind": "unsubscribed", "message_id": str(link), "at": self.now.isoformat()}
        with self.transaction() as conn:
            if link:
                key = f"web:unsubscribed:{link}"
                db.run(conn, "80_land_public_event", source="web", key=key, payload=db.dumps(event), now=self.now)
            db.run(conn, "81_suppress_for_message", message=link or message, now=self.now)
        self._said_no(address, "unsubscribed")
        self.shop.count("unsubscribed during the hand-over")

    def _said_no(self, address: str, kind: str) -> None:
        said = self.oracle.said_no.setdefault(address, [])
        if kind not in {known for _, known in said}:
            said.append((self.count, kind))

    def _throw_switch(self, campaign: str) -> None:
        scope, name = self.random.choice((("campaign", campaign), ("all", ""), ("shop", "shop")))
        with self.transaction() as conn:
            thrown = switch.stop(conn, scope, name, "a look first", "ana", self.now)
        if thrown:
            self.oracle.stops.append((self.count, None, scope, name))
            self.switches.append((self.now + timedelta(hours=self.random.uniform(0, 30)), scope, name))
            self.shop.count("kill switch thrown during the hand-over")

    def _lift_switches(self, conn: Any) -> None:
        for entry in list(self.switches):
            until, scope, name = entry
            if self.now >= until or self.calm:
                switch.go(conn, scope, name, "looked", "ana", self.now)
                self.switches.remove(entry)
                self.count += 1
                self.oracle.stops = [
                    (thrown, self.count if (lifted is None and (s, n) == (scope, name)) else lifted, s, n)
                    for thrown, lifted, s, n in self.oracle.stops
                ]

    def _watch(self) -> None:
        with self.transaction() as conn:
            seen = volume.watch_canaries(conn, self.now)
        self.shop.count("canary passed", seen["canaries_passed"])
        self.shop.count("canary failed", len(seen["canaries_failed"]))

    # ------------------------------------------------------------ what comes back

    def _feedback(self) -> None:
        reported = [event for at, event in self.post.reports if at <= self.now]
        with self.transaction() as conn:
            feedback.collect(conn, self.post, "", "email", self.now)
            done = feedback.apply(conn, self.now)
        self.shop.count("unknown settled by evidence", done["settled"])
        self.post.reports = [entry for entry in self.post.reports if entry[0] > self.now - 3 * HOUR]
        for told in reported:
            address = self.oracle.meanings[UUID(told["message_id"])].person.email
            if told["kind"] == "bounced":
                self._said_no(address, "hard_bounce")
            elif told["kind"] == "complained":
                self._said_no(address, "complained")
                self.shop.count("complained")
        self._refusals()

    def _refusals(self) -> None:
        for address in sorted(self.post.refused_for_good):
            self._said_no(address, "hard_bounce")

    # ------------------------------------------------------------ people edit files

    def _change_settings(self, number: int) -> None:
        if self.calm:
            self.calendar = self.calendar.model_copy(update={"pauses": ()})
            return
        day = self.now.date()
        if self.chance(40):
            pause = Pause.model_validate({"campaign": self.random.choice(("win_back", "feedback_30d", "all")), "from": day,
                                          "until": day + timedelta(days=self.random.randint(0, 8)), "why": "a pause"})  # fmt: skip
            self._edit(pauses=(pause,), what="campaign paused")
        if self.chance(40):
            off = Blackout(date=day + timedelta(days=self.random.randint(0, 5)), why="closed")
            self._edit(blackout_days=(*self.calendar.blackout_days[-3:], off), what="blackout day added")
        if self.chance(40):
            opens = self.random.choice((8, 9, 11))
            days = self.random.choice(
                (("mon", "tue", "wed", "thu", "fri"), ("mon", "tue", "wed", "thu", "fri", "sat", "sun"))
            )
            window = Window(opens=time(opens), closes=time(opens + self.random.choice((3, 9))), days=days)
            self._edit(window=window, what="send window moved")
        if self.chance(40):
            most, gap = self.random.choice(((3, 0), (1, 0), (2, 20)))
            cap = Cap.model_validate({"most": most, "within": "7 days"})
            self._edit(pressure=Pressure(caps=(cap,), gap=timedelta(hours=gap)), what="cap changed")
        if self.chance(30):
            self._edit_campaign(number)
        if self.chance(60):
            self._import_codes(15)

    def _edit(self, what: str, **changes: Any) -> None:
        self.calendar = Calendar.model_validate(self.calendar.model_copy(update=changes))
        self.shop.count(what)

    def _edit_campaign(self, number: int) -> None:
        asked = self.campaigns["feedback_30d"]
        step = asked.steps[0].model_copy(update={"on_day": self.random.choice((20, 30, 35))})
        edited = asked.model_copy(update={"steps": (step,), "why": f"Because of day {number}."})
        self.campaigns = self.campaigns | {asked.id: edited}
        self.oracle.files[asked.id].append(edited)
        self.shop.count("campaign file edited")

    def _import_codes(self, codes: int) -> None:
        rows = [{"code": f"CLUB-{self.codes + n:05d}", "valid_until": None} for n in range(codes)]
        self.codes += codes
        pools = coupons.load_pools()
        pools["club"] = pools["club"].model_copy(update={"kind": "imported"})
        with self.transaction() as conn:
            coupons.declare(conn, pools, self.now)
            db.run(conn, "48_import_coupons", pool="club", rows=db.dumps(rows), now=self.now)
        if self.codes > codes:
            self.shop.count("codes imported")

    # ------------------------------------------------------------ the evening

    def _maintain(self, number: int) -> None:
        self._refusals()
        with self.transaction() as conn:
            if not self.chance(
                self.setup.neglect
            ):  # what ended a passage is seen at the claim, whether or not somebody looked before
                enrolment.end_enrolments(conn, list(self.campaigns.values()), self.now)
            volume.expire_held(conn, self.now)
        if number % 30 == 29:
            self.oracle.honest(self.post, None)
            self.oracle.orders(None)
        else:
            self.oracle.honest(self.post, self.now - 2 * DAY)
        self.oracle.daily(self.now)
        self.oracle.coupons({"club": self.codes})
        self.shop.count("daily checks")

    # ------------------------------------------------------------ fingerprints

    def _fingerprint(self) -> str:
        tables = "messages enrolments attempts events suppressions refusals orders consents segment_memberships"
        each = "select md5(string_agg(md5(t::text), '' order by md5(t::text))) from {} as t"
        parts = [self.oracle.ask(each.format(table))[0][0] for table in tables.split()]
        return sha256(repr(parts).encode()).hexdigest()[:16]

    def _ledger(self) -> str:
        return sha256(repr(self.post.dots).encode()).hexdigest()[:16]


def simulate(setup: Setup, engine: Engine, folder: Path) -> Story:
    """Run it. Raises Violation with the day and the seed when something did not hold."""
    began, cpu = monotonic(), processor_seconds(engine)
    year = Year(setup, engine, folder)
    try:
        return year.run()
    finally:
        used = processor_seconds(engine) - cpu
        size = f"{setup.days} days, {setup.customers} customers, {sum(year.post.copies.values())} mails taken"
        print(f"\nPOSTLUDE_SIM_SEED={setup.seed}: {size}, {monotonic() - began:.0f} s, of processor {used:.0f} s")


def _warm(url: URL) -> Engine:
    """The library's engine for thousands of short transactions: each statement is parsed and planned once per connection."""
    options = "-csearch_path=postlude,public -ctimezone=UTC -csynchronous_commit=on -cjit=off -cplan_cache_mode=force_generic_plan"
    made = create_engine(
        url, connect_args={"options": options, "prepare_threshold": 0}, json_serializer=db.dumps, hide_parameters=True,
        pool_use_lifo=True,  # the connection that knows the statements
    )  # fmt: skip
    event.listen(made, "connect", lambda raw, _: setattr(raw, "prepared_max", 1000))
    return made


def processor_seconds(engine: Engine) -> float:
    """What this process and the database server have used by now (Linux; else this process alone): the clock lies on a busy machine."""
    with engine.connect() as conn:
        backend = conn.scalar(text("select pg_backend_pid()"))
    try:
        server = int(_fields(backend)[1])
        children = Path(f"/proc/{server}/task/{server}/children").read_text().split()
        ticks = sum(map(int, _fields(server)[11:15]))  # its own, and those of its processes that have ended
        ticks += sum(sum(map(int, _fields(child)[11:13])) for child in children)
    except (OSError, IndexError):
        ticks = 0
    return process_time() + ticks / os.sysconf("SC_CLK_TCK")


def _fields(pid: int | str) -> list[str]:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
