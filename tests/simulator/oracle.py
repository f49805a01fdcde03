"""The judge: what went out and what is true, held against what the database says. It computes nothing as the engine does."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, Engine, text

from postlude.calendar import Calendar
from postlude.campaign import Campaign
from postlude.message import uuid_of
from simulator.post import Dot, Post
from simulator.shop import CATEGORIES, DAY, HOUR, Fact, Order, Person, Shop

LEASE = timedelta(minutes=15)
FRESH = timedelta(hours=36)  # how old the newest order may be for a mail that rests on absence ...
LAG = timedelta(hours=13)  # ... and how much later than its time the feed tells of an order, without an outage
OPEN = ("scheduled", "held", "sending", "unknown")
REASONS = set(re.findall(r"`([a-z_]+)`", (Path(__file__).parents[2] / "docs/reasons.md").read_text(encoding="utf-8")))
WIN_BACK_DAYS = {"miss_you": 0, "whats_new": 6, "coupon": 13, "last_word": 24}


class Violation(AssertionError):
    """An invariant that did not hold."""


@dataclass(frozen=True)
class Meaning:
    """What a message id stands for, worked out from the truth."""

    campaign: str
    step: str
    person: Person
    customer: int
    order: Order | None = None
    day: date | None = None


@dataclass
class Claim:
    at: datetime
    count: int
    worker: str
    calendar: Calendar


@dataclass
class Oracle:
    engine: Engine
    shop: Shop
    customers: dict[str, int]
    told: Any  # words for the failure: seed and day
    meanings: dict[UUID, Meaning] = field(default_factory=dict)
    claims: dict[UUID, Claim] = field(default_factory=dict)
    said_no: dict[str, list[tuple[int, str]]] = field(default_factory=dict)  # address -> (count of everything, kind)
    stops: list[tuple[int, int | None, str, str]] = field(default_factory=list)  # thrown, lifted, scope, name
    files: dict[str, list[Campaign]] = field(default_factory=dict)  # every content a campaign file had
    planned_at: dict[str, list[datetime]] = field(default_factory=dict)
    sent_to: dict[int, list[Dot]] = field(default_factory=dict)
    last_state: dict[UUID, tuple[str, str | None]] = field(default_factory=dict)
    suppressed: set[tuple[str, str]] = field(default_factory=set)
    watermark: datetime | None = None
    allowed: dict[str, int] = field(default_factory=dict)  # campaign -> messages a person has approved
    went: dict[str, set[UUID]] = field(default_factory=dict)
    _own: Connection | None = None  # asks, statement by statement; with a table of the states seen last
    _looked_at: int = 0  # so many dots of the ledger have been looked at

    def demand(self, holds: object, invariant: str, what: str) -> None:
        if not holds:
            raise Violation(f"{invariant}: {what} [{self.told()}]")

    # ------------------------------------------------------------ what ids mean

    def learn(self, facts: list[Fact], campaigns: dict[str, Campaign]) -> None:
        """Ids of everything that could ever be planned because of these facts."""
        for order in {fact.order.key: fact.order for fact in facts if fact.order.person}.values():
            anchor = f"shop:{order.key}"
            if ("known", anchor) in self._seen:
                continue
            self._seen.add(("known", anchor))
            for campaign in campaigns.values():
                if campaign.trigger.event:
                    self.mean(campaign, order.person, f"order:{anchor}", order)
                elif campaign.trigger.enters == "lapsed":
                    self.mean(campaign, order.person, f"lapsed:{anchor}", order)

    def mean(
        self,
        campaign: Campaign,
        person: Person | None,
        anchor: str,
        order: Order | None = None,
        day: date | None = None,
    ) -> None:
        assert person
        customer = self.customers[person.key]
        enrolment = uuid_of("enrolment", campaign.id, str(customer), anchor)
        for step in campaign.steps:
            self.meanings[uuid_of("message", str(enrolment), step.id)] = Meaning(
                campaign.id, step.id, person, customer, order, day
            )

    def __post_init__(self) -> None:
        self._seen: set[tuple[str, str]] = set()

    # ------------------------------------------------------------ at the claim: is it true, allowed and timely?

    def claimed(self, message: UUID, claim: Claim, campaigns: dict[str, Campaign]) -> None:
        meaning = self.meanings.get(message)
        self.demand(meaning, "I14", f"message {message} stands for nothing that ever happened")
        assert meaning
        campaign, person, order, now = campaigns[meaning.campaign], meaning.person, meaning.order, claim.at
        self.claims[message] = claim
        what = f"{meaning.campaign}/{meaning.step} to {person.key} about {order.key if order else meaning.day} at {now}"
        if campaign.kind == "marketing":
            self._window(claim, meaning, what)
            self.demand(person.consents, "I3", f"{what}: no consent")
        pause = claim.calendar.paused(campaign.id, campaign.kind, now)
        self.demand(pause is None, "I17", f"{what}: the campaign is paused")
        if campaign.id in ("win_back", "feedback_30d"):
            newest = self.shop.newest_told
            self.demand(
                newest and newest >= now - FRESH, "I6", f"{what}: the newest order the feed told is of {newest}"
            )
        told = self.shop.told[order.key] if order else None
        if campaign.id == "win_back":
            assert order
            news = self.shop.orders_after(person, order.placed, now, told=True)
            self.demand(not news, "I6", f"{what}: the feed told of a later order {[o.key for o in news]}")
            news = self.shop.orders_after(person, order.placed, now - FRESH - LAG, told=False)
            self.demand(
                not news, "I6", f"{what}: there is a later order {[o.key for o in news]}, and the feed had time to tell"
            )
            due = order.placed + (180 + WIN_BACK_DAYS[meaning.step]) * DAY
            self.demand(due - DAY <= now <= due + 4.5 * DAY, "I22", f"{what}: was due on {due}")
        if campaign.id == "feedback_30d":
            assert order and told
            self.demand(told.delivered, "I7", f"{what}: the parcel is not known to have arrived")
            self.demand(not told.cancelled, "I7", f"{what}: the order was cancelled")
            self.demand(not told.returned, "I7", f"{what}: the item was sent back")
            self.demand(not told.reviewed, "I7", f"{what}: the customer has answered")
            days = [self._days(version, order.sku) for version in self.files["feedback_30d"]]
            due = told.delivered + min(days) * DAY
            self.demand(due - DAY <= now, "I5", f"{what}: not due before {due}")
            late = told.delivered + (max(days) + 8.5) * DAY
            self.demand(now <= late, "I22", f"{what}: was over on {late}")
        if campaign.kind == "marketing":
            open_ones = [o.key for o in person.orders if (known := self.shop.told.get(o.key)) and known.open_return]
            self.demand(not open_ones or campaign.id == "spring", "I7", f"{what}: a return is open {open_ones}")
        if campaign.id == "shipped_notice":
            assert order and told
            self.demand(told.shipped and not told.cancelled, "I7", f"{what}: not on its way")
            self.demand(now <= order.shipped + 2 * DAY + HOUR, "I22", f"{what}: left on {order.shipped}")
        for group in campaign.control_groups:
            mark = f"{group['salt']}\x1f{group['campaign_id']}\x1f{meaning.customer}"
            lot = int(sha256(mark.encode()).hexdigest()[:8], 16)
            self.demand(lot >= group["share"] * 2**32, "I10", f"{what}: is in the control group")

    @staticmethod
    def _days(version: Campaign, sku: str) -> int:
        step = version.steps[0]
        return step.days_by_category.get(CATEGORIES[sku], step.on_day or 0)

    def _window(self, claim: Claim, meaning: Meaning, what: str) -> None:
        local = claim.at.astimezone(ZoneInfo(meaning.person.clock))
        window = claim.calendar.window_of(meaning.campaign)
        wall = time(local.hour, local.minute, local.second)
        self.demand(window.opens <= wall < window.closes, "I5", f"{what}: it is {wall} there")
        self.demand(
            local.isoweekday() in claim.calendar.weekday_numbers(meaning.campaign),
            "I5",
            f"{what}: it is a {local:%A} there",
        )
        self.demand(local.date() not in claim.calendar.blackouts, "I5", f"{what}: {local.date()} is a blackout day")

    # ------------------------------------------------------------ at the dot

    def dot(self, dot: Dot) -> None:
        meaning, claim = self.meanings[dot.message_id], self.claims.get(dot.message_id)
        what = f"{meaning.campaign}/{meaning.step} to {meaning.person.key} at {dot.at}"
        self.demand(claim, "I12", f"{what}: sent without a claim")
        assert claim
        self.demand(claim.worker == dot.worker, "I12", f"{what}: claimed by {claim.worker}, sent by {dot.worker}")
        self.demand(
            dot.asked - claim.at <= LEASE + timedelta(minutes=1),
            "I12",
            f"{what}: claimed at {claim.at}, the lease was over",
        )
        self.demand(meaning.person.email == dot.address, "I7", f"{what}: went to {dot.address}")
        for count, kind in self.said_no.get(dot.address, ()):
            if kind == "hard_bounce" or dot.kind == "marketing":
                self.demand(count > dot.count, "I3", f"{what}: {kind} was committed before")
        for thrown, lifted, scope, name in self.stops:
            covers = (name == meaning.campaign) if scope == "campaign" else dot.kind == "marketing"
            if covers and thrown < dot.count and (lifted is None or lifted > dot.count):
                self.demand(False, "I17", f"{what}: {scope} {name} had been stopped")
        if meaning.campaign == "spring":
            went, most = self.went.setdefault("spring", set()), self.allowed.get("spring", 0)
            went.add(dot.message_id)
            self.demand(len(went) <= most, "I18", f"{what}: {most} were released, it is number {len(went)}")
        if dot.kind == "marketing":
            self._pressure(dot, meaning, claim, what)
            self.sent_to.setdefault(meaning.customer, []).append(dot)

    def _pressure(self, dot: Dot, meaning: Meaning, claim: Claim, what: str) -> None:
        before = [
            other
            for other in self.sent_to.get(meaning.customer, ())
            if other.answer != "451" and other.message_id != dot.message_id
        ]
        pressure = claim.calendar.pressure_in_force
        for most, within in [(cap.most, cap.within) for cap in pressure.caps if cap.within] + [(1, pressure.gap)]:
            recent = [other for other in before if other.at > dot.at - within]
            self.demand(
                len(recent) < most, "I4", f"{what}: {len(recent)} went in the last {within} already, {most} may"
            )
        if meaning.campaign == "feedback_30d":
            asked = [o.at for o in before if o.campaign == "feedback_30d" and o.at > dot.at - 30 * DAY]
            self.demand(not asked, "I4", f"{what}: was asked at {asked}")

    def stored(self, dot: Dot, copies: int) -> None:
        what = f"{dot.campaign} to {dot.address}: copy number {copies}"
        earlier = self._stored.setdefault(dot.message_id, [])
        if dot.kind == "marketing":
            self.demand(copies == 1, "I1", what)
        else:  # what became of each copy but the last could not be known, and all are the same bytes
            known = [one for one in earlier if one.settled and one.answer not in ("lost", "none")]
            self.demand(copies <= 3 and not known, "I2", what)
            self.demand({one.digest for one in earlier} <= {dot.digest}, "I2", f"{what} differs from the first")
        earlier.append(dot)
        if dot.code is not None:
            self.demand(dot.code, "I13", f"{dot.campaign} to {dot.address}: a mail without its code")
            other = self._codes.setdefault(dot.code, dot.message_id)
            self.demand(
                other == dot.message_id,
                "I13",
                f"{dot.campaign} to {dot.address}: its code was given to {other} as well",
            )

    _codes: dict[str, UUID] = field(default_factory=dict)
    _stored: dict[UUID, list[Dot]] = field(default_factory=dict)

    # ------------------------------------------------------------ between passes and days

    def ask(self, statement: str, **params: Any) -> list[Any]:
        """Rows as they are committed now."""
        if self._own is None:
            # without transactions: a roll-back makes the driver forget the statements it has prepared
            self._own = self.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
            self._own.execute(
                text("create temporary table seen (message_id uuid primary key, state text, reason text)")
            )
        return list(self._own.execute(text(statement), params))

    def after_recovery(self, now: datetime) -> None:
        late = self.ask("select message_id from messages where state = 'sending' and claimed_at < :at", at=now - LEASE)
        self.demand(not late, "I9", f"{len(late)} claims are older than their lease")

    def honest(self, post: Post, since: datetime | None) -> None:
        """States against the ledger: of all messages, or of those that changed since an instant, here or outside."""
        everything = "select message_id, kind, state, reason from messages"
        rows = self.ask(everything) if since is None else self._changed(post, since)
        for row in rows:
            copies, before = post.copies.get(row.message_id, 0), self.last_state.get(row.message_id)
            meaning = self.meanings.get(row.message_id)
            self.demand(meaning, "I14", f"message {row.message_id} stands for nothing that ever happened")
            what = (
                f"{meaning.campaign}/{meaning.step} to {meaning.person.key} is {row.state} ({row.reason})"
                if meaning
                else ""
            )
            if row.state == "sent":
                self.demand(copies, "I8", f"{what}: the outside never took it")
            if copies:
                again = row.kind == "transactional" and row.state == "scheduled" and row.message_id in self._lost(post)
                self.demand(row.state in ("sent", "unknown", "sending") or again, "I8", f"{what}: the outside has it")
            if row.state not in ("sent", "scheduled", "sending"):
                self.demand(row.reason in REASONS, "I10", f"{what}: no documented reason")
            if before and before != (row.state, row.reason):
                self.demand(
                    before[0] in OPEN[:3]
                    or (before[0], row.state) == ("unknown", "sent")
                    or (row.kind == "transactional" and before[0] == "unknown"),
                    "I11",
                    f"{what}: it was {before} before",
                )
            self.last_state[row.message_id] = (row.state, row.reason)
        if since is None:
            self.demand(
                len(rows) == len(self.last_state),
                "I11",
                f"{len(self.last_state)} messages were seen, {len(rows)} are there",
            )
            known = {row.message_id for row in rows}
            self.demand(known >= set(post.copies), "I8", "the outside has mails nobody planned")

    def _changed(self, post: Post, since: datetime) -> list[Any]:
        """Messages that are not as they were seen last, and those of which something went out since; none that ended before `since`."""
        touched, self._looked_at = {dot.message_id for dot in post.dots[self._looked_at :]}, len(post.dots)
        return self.ask(
                "with looked as (select m.message_id, m.kind, m.state, m.reason, m.message_id = any(:touched) as touched, "
                "s.message_id is null or (s.state, s.reason) is distinct from (m.state, m.reason) as changed "
                "from messages as m left join seen as s using (message_id) "
                "where m.finalized_at is null or m.finalized_at >= :since or m.message_id = any(:touched)), "
                "kept as (insert into seen select message_id, state, reason from looked where changed "
                "on conflict (message_id) do update set state = excluded.state, reason = excluded.reason) "
                "select message_id, kind, state, reason from looked where changed or touched",
                since=since, touched=list(touched),
        )  # fmt: skip

    def close(self) -> None:
        if self._own is not None:
            self._own.close()

    @staticmethod
    def _lost(post: Post) -> set[UUID]:
        """Messages of which an answer was lost: a transactional one goes again."""
        return {dot.message_id for dot in post.dots if dot.answer in ("lost", "none") or not dot.settled}

    def daily(self, now: datetime) -> None:
        rows = self.ask(
            "select a.message_id from attempts as a join messages as m using (message_id) "
            "where a.settled_at is null and (m.state <> 'sending' or m.attempt <> a.attempt or m.claimed_by <> a.worker)"
        )
        self.demand(not rows, "I12", f"{len(rows)} attempts are open beside their message")
        watermark = self.ask("select complete_until from sources")[0][0]
        if self.watermark:
            self.demand(watermark >= self.watermark, "I16", f"the watermark fell from {self.watermark} to {watermark}")
        self.demand(
            watermark is None or watermark <= (self.shop.newest_told or watermark),
            "I16",
            f"the watermark is {watermark}",
        )
        self.watermark = watermark
        found = {
            (row.address, row.reason)
            for row in self.ask("select address, reason from suppressions where lifted_at is null")
        }
        self.demand(found >= self.suppressed, "I19", f"suppressions vanished: {sorted(self.suppressed - found)[:3]}")
        truth = {(address, kind) for address, said in self.said_no.items() for _, kind in said}
        self.demand(found <= truth, "I19", f"suppressed without any cause: {sorted(found - truth)[:3]}")
        self.demand(truth <= found, "I19", f"said no and is not suppressed: {sorted(truth - found)[:3]}")
        self.suppressed = found

    def orders(self, touched: set[str] | None) -> None:
        """Order rows equal the fold of the versions told, in whatever order they were told."""
        every = (
            "select o.source_order_id, o.placed_at, o.cancelled_at, o.status, o.updated_at, o.counted_amount, c.source_customer_id "
            "from orders as o left join customers as c using (customer_id)"
        )
        some = " where o.source_id = 'shop' and o.source_order_id = any(cast(:keys as text[]))"  # found by their key
        rows = self.ask(every) if touched is None else self.ask(every + some, keys=sorted(touched))
        for row in rows:
            told = self.shop.told[row.source_order_id]
            version, order = told.version, self.shop.orders[row.source_order_id]
            assert version
            wanted = (
                version["placed_at"], version["cancelled_at"], version["status"], version["updated_at"],
                order.amount if order.person else None, version["source_customer_id"],
            )  # fmt: skip
            self.demand(
                tuple(row)[1:] == wanted, "I15", f"order {order.key} is {tuple(row)[1:]}, its versions say {wanted}"
            )
        if touched is None:
            with_version = sum(told.version is not None for told in self.shop.told.values())
            self.demand(len(rows) == with_version, "I15", f"{with_version} orders were told, {len(rows)} are there")

    def coupons(self, pools: dict[str, int]) -> None:
        rows = self.ask("select code, message_id, state, pool from coupons where state = 'bound'")
        held = {row.code: row.message_id for row in rows}
        for code, message in self._codes.items():
            self.demand(held.get(code) == message, "I13", f"code of {message} went out and is not bound to it")
        for pool, most in pools.items():
            given = sum(row.pool == pool for row in rows)
            self.demand(given <= most, "I13", f"{given} codes of {pool} were given, it has {most}")

    # ------------------------------------------------------------ at the end

    def quiet(self, now: datetime) -> None:
        """After the faults stopped: whatever is over has ended, and nobody hangs in a passage for ever."""
        rows = self.ask("select message_id, state, reason, expires_at from messages "
            "where state in ('scheduled', 'held', 'sending') and expires_at < :at",
                        at=now - 2 * HOUR)  # fmt: skip
        named = [
            (self.meanings[row.message_id].campaign, row.state, row.reason, str(row.expires_at)) for row in rows[:5]
        ]
        self.demand(not rows, "I9", f"{len(rows)} messages are over and have not ended: {named}")
        longest = {name: max(version.timeline for version in versions) for name, versions in self.files.items()}
        rows = self.ask("select campaign_id, anchor_at, customer_id, arm from enrolments where exited_at is null")
        stuck = [row for row in rows if row.anchor_at + longest[row.campaign_id] + 5 * DAY < now]
        self.demand(not stuck, "I9", f"{len(stuck)} passages have no end: {[tuple(row) for row in stuck[:3]]}")

    def complete(self, post: Post, campaign: Campaign, end: datetime) -> dict[str, int]:
        """Everybody due by truth got the feedback mail or has a stored, documented and true reason; counts by reason."""
        messages = {
            row.source_order_id: row
            for row in self.ask(
                "select o.source_order_id, m.message_id, m.state, m.reason, e.arm, e.exit_reason "
                "from enrolments as e join orders as o using (order_id) left join messages as m using (enrolment_id) "
                "where e.campaign_id = :id", id=campaign.id,
            )
        }  # fmt: skip
        refused: dict[str, list[str]] = {}
        for row in self.ask("select anchor_key, reason from refusals where campaign_id = :id", id=campaign.id):
            refused.setdefault(row.anchor_key.rpartition(":")[2], []).append(row.reason)
        unknown = {reason for reasons in refused.values() for reason in reasons} - REASONS
        self.demand(not unknown, "I10", f"refused for undocumented reasons {sorted(unknown)}")
        plans, counts = self.planned_at.get(campaign.id, []), dict[str, int]()
        for order in self.shop.orders.values():
            told = self.shop.told.get(order.key)
            if (
                order.person is None
                or told is None
                or told.delivered is None
                or told.delivery_told_at is None
                or told.version is None
            ):
                continue
            row, what = messages.get(order.key), f"order {order.key} of {order.person.key}, delivered {told.delivered}"
            outcome = None
            if row is not None and row.message_id is not None:
                outcome = "mailed" if post.copies.get(row.message_id) else (row.reason or row.state)
            elif row is not None:
                outcome = "holdout" if row.arm == "holdout" else row.exit_reason
            elif order.key in refused:
                outcome = refused[order.key][-1]
            if outcome is None:
                seen = [at for at in plans if at >= told.delivery_told_at]
                in_reach = [at for at in seen if told.delivered <= at < told.delivered + campaign.trigger.max_age]
                self.demand(
                    not in_reach, "I10", f"{what}: nobody knows why there is no mail (planned at {in_reach[:2]})"
                )
                outcome = "too old when told" if seen else "not planned yet"
            self.demand(self._true(outcome, order), "I10", f"{what}: the reason {outcome} is not true")
            counts[outcome] = counts.get(outcome, 0) + 1
        return counts

    def _true(self, reason: str, order: Order) -> bool:
        person, told = order.person, self.shop.told[order.key]
        assert person
        no = {kind for _, kind in self.said_no.get(person.email, ())}
        returned = any((known := self.shop.told.get(o.key)) and known.returned for o in person.orders)
        later = any(
            (known := self.shop.told.get(o.key)) and known.delivered and told.delivered and known.delivered > told.delivered
            for o in person.orders
        )  # fmt: skip
        return {
            "superseded": later,
            "returned": bool(told.returned), "reviewed": bool(told.reviewed), "order_cancelled": told.cancelled, "return_open": returned,
            "ticket_open": False, "no_consent": not person.consents or bool(no), "unsubscribed": "unsubscribed" in no,
            "complained": "complained" in no, "hard_bounce": "hard_bounce" in no, "marketplace": False, "no_address": False,
            "manual": False, "erased": False, "refused_recipient": person.dead, "suppressed": bool(no) or not person.consents,
        }.get(reason, True)  # fmt: skip
