"""What a campaign file may say. The models are the manual: docs/campaign.schema.json is exported from them for editors.

A campaign is a named sequence of steps for one audience, with a trigger, a goal and exit rules; one YAML file.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from postlude import campaign_rules, yamlfile
from postlude.conditions import Condition, Days, Reentry, Slug, TableName, Variant, WaitFor, load_table
from postlude.errors import Fault, InputError
from postlude.settings import settings
from postlude.timing import Duration, WallTime, in_words
from postlude.yamlfile import Strict

ExitRule = Literal[
    "ordered", "reviewed", "returned", "cancelled", "left_segment", "clicked", "rated_low", "over",
    "shipped", "delivered", "ticket_opened", "rated", "superseded",
]  # fmt: skip
ChannelName = Literal["email", "sms", "webhook", "banner"]
StopRule = Literal["return_open", "ticket_open", "recovery_open"]
STOPS: tuple[StopRule, ...] = ("return_open", "ticket_open", "recovery_open")
OrderEvent = Literal[
    "placed", "paid", "shipped", "delivered", "cancelled", "returned", "return_received", "refunded", "return_moved"
]
FeedName = Literal["orders", "reviews", "returns"]
Entity = Literal[
    "consents", "products", "shipments", "returns", "reviews", "tickets", "external_events"
]  # of a source's mapping
NEGATIVE = frozenset({"ordered", "reviewed", "over"})
# outside events that are worked out from what has not happened (docs/happenings.md)
ABSENT = frozenset({"abandoned_checkout", "replenishment_due", "next_order_expected", "disengaged", "unseen"})
# features that are made of what people have not done: a dead feed makes them true
RESTING = frozenset({"stage", "recency_days", "r_score", "score"})


class Trigger(Strict):
    """What makes a customer a candidate. Exactly one of event, enters, leaves, date, occasion and external."""

    event: OrderEvent | None = Field(
        None,
        description="an event of an order; returned: a return was asked for, return_received: it arrived, "
        "return_moved: each of asked for, received, refunded, exchanged",
    )
    enters: Slug | None = Field(None, description="the customer enters this segment (include/segments/<name>.yml)")
    leaves: Slug | None = Field(None, description="the customer leaves this segment")
    date: Literal["birthday", "first_order", "renewal"] | None = Field(
        None, description="a date of the customer: birthday, the yearly return of the first order, the next renewal"
    )
    occasion: Slug | None = Field(None, description="an entry under `occasions` in include/calendar.yml")
    external: Slug | None = Field(None, description="an event from outside of this kind (table external_events)")
    days_before: int = Field(
        0, ge=0, le=90, description="with date or occasion: the passage begins so many days before"
    )
    entry: Literal["from_now_on", "existing"] = Field(
        description="from_now_on: only what happens after the campaign first ran; existing: also what happened up to max_age ago"
    )
    max_age: Duration = Field(description="an event older than this enrols nobody: no old news")
    once_per: Literal["order", "episode", "customer", "parcel", "state"] = Field(
        "order",
        description="order: each order once; episode: each stay in the segment, each birthday, each outside event once; "
        "customer: once in a lifetime; parcel: each hand-over of a parcel (shipped); state: each state of a return (return_moved)",
    )

    @model_validator(mode="after")
    def _one_kind(self) -> Trigger:
        kinds = ("event", "enters", "leaves", "date", "occasion", "external")
        named = [kind for kind in kinds if getattr(self, kind) is not None]
        if len(named) != 1:
            told = f"these are named: {', '.join(named)}" if named else "none is named"
            raise ValueError(f"name exactly one of {', '.join(kinds)}; {told}")
        if self.event is None and self.once_per == "order":
            raise ValueError(f'a trigger by {named[0]} has no order; write "once_per: episode" or "once_per: customer"')
        if self.event and self.once_per == "episode":
            raise ValueError('an order event needs "once_per: order" or "once_per: customer"')
        if (self.once_per == "parcel") > (self.event == "shipped"):
            raise ValueError('"once_per: parcel" goes with "event: shipped"')
        if (self.once_per == "state") != (self.event == "return_moved"):
            raise ValueError('"event: return_moved" and "once_per: state" go together')
        return self

    @property
    def reads_features(self) -> bool:
        """Does it read what the segment stage made, which speaks of one instant only?"""
        return bool(self.enters or self.leaves or self.date == "first_order")

    def candidates(
        self,
        now: datetime,
        dates: list[dt.date],
        within: list[str],
        rest: timedelta = timedelta(0),
        customer: int | None = None,
    ) -> tuple[str, dict[str, Any]]:
        """The SQL file that fills the table `candidates` with everybody the trigger speaks of as of `now`, and its parameters.

        dates: of the occasion, from the calendar; within: the segments an occasion is for, empty for everybody; rest: how long
        the campaign did not run, by which the reach is widened; customer: only this one.
        """
        these: dict[str, Any] = {"now": now, "max_age": self.max_age + rest, "customer": customer}
        reach = these | {"once_per": self.once_per}
        if self.once_per in ("parcel", "state"):
            what = {"parcel": "parcel", "state": "return"}[self.once_per]
            return f"30_candidates_of_{what}", these
        if self.event:
            return "30_candidates_of_event", reach | {"event": self.event}
        if self.enters or self.leaves:
            what = "segment" if self.enters else "departure"
            return f"30_candidates_of_{what}", reach | {"segment": self.enters or self.leaves}
        if self.external:
            return "30_candidates_of_outside", reach | {"kind": self.external}
        if self.date:
            return "30_candidates_of_date", reach | {"date_of": self.date, "days_before": self.days_before}
        occasion = {"occasion": self.occasion, "dates": dates, "days_before": self.days_before, "within": within}
        return "30_candidates_of_occasion", reach | occasion

    def in_words(self) -> str:
        if self.event:
            return f"an order is {self.event.replace('_', ' ')}"
        if self.enters or self.leaves:
            return f"a customer {'enters' if self.enters else 'leaves'} “{self.enters or self.leaves}”"
        before = f"{self.days_before} days before " if self.days_before else ""
        if self.date:
            return before + {"birthday": "a customer’s birthday", "first_order": "the anniversary of the first order",
                             "renewal": "a renewal"}[self.date]  # fmt: skip
        return f"{before}the occasion “{self.occasion}”" if self.occasion else f"“{self.external}” is told from outside"


class Audience(Strict):
    """Who may be enrolled: the candidates, minus other segments, minus a control group that is left alone."""

    within: tuple[Slug, ...] = Field((), description="only members of at least one of these segments are enrolled")
    exclude: tuple[Slug, ...] = Field((), description="segments whose members are not enrolled")
    only_if: Condition | None = Field(
        None, description="only who fulfils this when the passage would begin; a step's only_if is asked at hand-over"
    )
    holdout: float = Field(
        0.0, ge=0, le=0.5, description="share of customers left alone to measure the effect, 0 to 0.5"
    )


class Contact(Strict):
    """A person customers may turn to, named in the letters."""

    name: str = Field(min_length=1, max_length=80)
    email: str | None = Field(None, pattern=r"^[^@\s]+@[^@\s]+$", description="default: the shop's own address")
    phone: str | None = None


class Approval(Strict):
    """When a named person must say yes before a run's messages may go, beside the campaign's own usual volume."""

    above: int | None = Field(None, ge=1, description="a run of more messages waits, whatever is usual")
    first_run: bool | None = Field(
        None,
        description="true: the first run waits, however small; false: it does not; default: as POSTLUDE_APPROVAL says",
    )
    by: tuple[str, ...] = Field((), description="Airflow users who may answer; default: whoever may answer in Airflow")


class Coupon(Strict):
    """A single-use code, made for one message and bound to it."""

    pool: Slug
    percent: int = Field(ge=1, le=90, description="discount in per cent")
    valid: Duration = Field(description="how long the code may be redeemed, from the day of sending")


class Step(Strict):
    """One message of the campaign, due a while after the anchor event."""

    id: Slug
    template: str | None = Field(
        None, pattern=r"^[a-z0-9_]+/[a-z0-9_]+$", description="folder/name in include/templates"
    )
    variants: tuple[Variant, ...] = Field((), description="several letters to compare, instead of template")
    on_day: Days | None = Field(None, description="so many local calendar days after the anchor event")
    on_day_by_category: dict[str, Days] | TableName = Field(
        {},
        description="days by product category of the order's main item, where they differ from on_day; "
        "or {table: name} for the table include/tables/name.yml",
    )
    after: Duration | None = Field(
        None, description="exact time after the anchor event, e.g. 36 hours, instead of on_day"
    )
    at: WallTime | None = Field(None, description="local time of day with on_day; default: when the send window opens")
    wait_for: WaitFor | None = Field(
        None, description="due when something has happened after the step before; on_day or after then count from there"
    )
    only_if: Condition | None = Field(None, description="sent only if this holds at hand-over")
    channel: ChannelName | None = Field(None, description="the channel of this step, where it is not the campaign's")
    channels: tuple[ChannelName, ...] = Field(
        (),
        description="several channels, best first: the customer's preferred one if it is among them, else the first on which "
        "the customer can be reached",
    )
    branch: Slug | None = Field(
        None, description="neighbouring steps of one branch are alternatives: the first whose only_if holds is sent"
    )
    expires_after: Duration = Field(description="not sent later than this after it was due")
    office_hours: bool = Field(
        False, description="put off to the next opening of `office` in the calendar, on the recipient's clock"
    )
    promotes: bool = Field(
        False,
        description="in a transactional campaign: this letter also promotes. Only for who agreed to marketing, and written as "
        "the law asks of marketing; the next alternative of its branch takes the others",
    )
    coupon: Coupon | None = None

    @model_validator(mode="after")
    def _one_delay(self) -> Step:
        if self.on_day is not None and self.after is not None:
            raise ValueError('name either "on_day" (local calendar days) or "after" (exact time), and not both')
        if self.on_day is None and self.after is None and self.wait_for is None:
            raise ValueError('name either "on_day" (local calendar days) or "after" (exact time), or "wait_for"')
        if self.on_day is None and (self.at or self.on_day_by_category):
            raise ValueError('"at" and "on_day_by_category" go with "on_day", not with "after"')
        if self.expires_after < timedelta(hours=1):
            raise ValueError("expires_after must be at least 1 hour, or a short pause would lose the message")
        if self.channel and self.channels:
            raise ValueError('name either "channel" or "channels", and not both')
        if len(set(self.channels)) != len(self.channels):
            raise ValueError("a channel is named twice")
        if (self.template is None) == (not self.variants):
            raise ValueError('name either "template" or "variants", and not both')
        return self

    @property
    def days_by_category(self) -> dict[str, int]:
        """The days by category; the table is read when the file is."""
        return self.on_day_by_category if isinstance(self.on_day_by_category, dict) else {}

    @property
    def templates(self) -> tuple[str, ...]:
        return (self.template,) if self.template else tuple(variant.template for variant in self.variants)

    @property
    def delay(self) -> timedelta:
        """Longest time it waits from its anchor, or from what it waits for."""
        if self.after is not None:
            return self.after
        return timedelta(days=max([self.on_day or 0, *self.days_by_category.values()]))


class Campaign(Strict):
    """A campaign file, include/campaigns/<id>.yml."""

    id: Slug
    name: str = Field(min_length=1, max_length=80)
    description: str = Field("", description="for whom, why, and what it should do for them")
    owner: str = Field(min_length=1, description="who answers for it")
    kind: Literal["marketing", "transactional"] = "marketing"
    topic: Slug = Field("marketing", description="the consent it needs, for marketing")
    channel: ChannelName = "email"
    priority: int = Field(5, ge=1, le=9, description="1 goes first when several campaigns want the same customer")
    trigger: Trigger
    audience: Audience = Audience()  # type: ignore[call-arg]
    approval: Approval = Approval()  # type: ignore[call-arg]
    goal: ExitRule | None = Field(None, description="the exit that counts as success")
    exit_on: tuple[ExitRule, ...] = Field(
        (), description="facts that end the passage, checked at planning and at hand-over"
    )
    stop_while: tuple[StopRule, ...] = Field(
        default_factory=lambda given: () if given.get("kind") == "transactional" else STOPS,
        description="while this is so, nothing is sent; transactional mail stops for nothing",
    )
    contact: Contact | None = Field(None, description="a person customers may turn to, named in the letters")
    needs: tuple[Entity, ...] = Field(
        (), description="off until a scheduled source delivers all of these: what the campaign cannot do without"
    )
    needs_fresh_orders: bool | None = Field(
        None,
        description="wait while the order feed is stale; default: derived from the rules (yes when one rests on absence)",
    )
    depends_on: tuple[FeedName, ...] | None = Field(
        None,
        min_length=1,
        description="feeds that must be fresh for a customer's shop, or it waits; default: derived from the rules. "
        "What the rules rest on must be among them",
    )
    reentry: Literal["never", "once_per_anchor"] | Reentry = Field(
        "once_per_anchor",
        description="never: one passage in a lifetime; once_per_anchor: one for each order, stay, date, ...; "
        "{after: 90 days}: not again before that much time has passed on the customer's calendar",
    )
    at_most_every: Duration | None = Field(
        None, description="no second message of this campaign to a customer within this time"
    )
    withdraw_after: Duration | None = Field(
        None,
        description="who gives no sign of a human so long after the last step has gone is written to no more: the consent is withdrawn",
    )
    why: str = Field(min_length=1, description="told to the customer: why do I get this mail?")
    steps: tuple[Step, ...] = Field(min_length=1)

    @field_validator("steps")
    @classmethod
    def _distinct_steps(cls, steps: tuple[Step, ...]) -> tuple[Step, ...]:
        ids = [step.id for step in steps]
        twice = sorted({i for i in ids if ids.count(i) > 1})
        if twice:
            raise ValueError(f'two steps are called "{twice[0]}"; give each its own id')
        return steps

    @model_validator(mode="after")
    def _goal_ends_it(self) -> Campaign:
        if self.goal and self.goal not in self.exit_on:
            raise ValueError(
                f'the goal "{self.goal}" must also be in exit_on, or the campaign would go on after success'
            )
        return self

    @property
    def per_fact(self) -> bool:
        """May a customer be in it twice at a time? It is about single orders, parcels, returns, or tells facts as they come."""
        return self.kind == "transactional" or self.trigger.once_per in ("order", "parcel", "state")

    @property
    def rests_on_absence(self) -> bool:
        """Would a dead feed make it mail people it should not? Then it waits for fresh data."""
        return bool(self.feeds)

    @property
    def feeds(self) -> tuple[str, ...]:
        """The feeds whose silence it would mistake for a fact; nobody whose shop has a stale one of them is mailed."""
        if self.needs_fresh_orders is False:
            return ()
        if self.depends_on is not None:
            return self.depends_on
        return self.derived_feeds or (("orders",) if self.needs_fresh_orders else ())

    @property
    def derived_feeds(self) -> tuple[str, ...]:
        """Orders, if any rule rests on absence; also reviews and returns where a rule is about those not being there."""
        if self.kind == "transactional" or not (
            self.trigger.enters
            or self.trigger.leaves
            or self.trigger.external in ABSENT
            or NEGATIVE & set(self.exit_on)
            or _unsure(self.audience.only_if)
            or any(_rests(step) for step in self.steps)
        ):
            return ()
        told = {*self.exit_on, *(fact for step in self.steps for fact in _facts(step))}
        return ("orders", *(feed for feed, fact in (("reviews", "reviewed"), ("returns", "returned")) if fact in told))

    def offers(self, step: Step) -> tuple[ChannelName, ...]:
        """The channels a step may go through, best first."""
        return step.channels or (step.channel or self.channel,)

    def variables(self, step: Step) -> dict[str, Any]:
        """What a template knows of the campaign and the step, as rendering.CONTEXT describes it."""
        markets = self.kind == "marketing" or step.promotes
        return {
            "why": self.why,
            "campaign": {"id": self.id, "name": self.name, "marketing": markets},
            "step": {"id": step.id},
        }

    @property
    def every_channel(self) -> list[str]:
        """All channels of all steps, in their order: who can be reached on one of them can be enrolled."""
        return list(dict.fromkeys(channel for step in self.steps for channel in self.offers(step)))

    @property
    def control_groups(self) -> list[dict[str, Any]]:
        """The draws that leave people alone: the campaign's own and, for marketing, the one over all campaigns ('')."""
        config = settings()
        draws = [{"campaign_id": self.id, "share": self.audience.holdout, "salt": config.holdout_salt}]
        if self.kind == "marketing":
            draws.append({"campaign_id": "", "share": config.global_holdout, "salt": config.global_holdout_salt})
        return [draw for draw in draws if draw["share"]]

    @property
    def timeline(self) -> timedelta:
        """From the anchor to the moment after which no step can be sent any more, with a day for zones and windows."""
        longest = latest = timedelta()
        for step in self.steps:
            start = latest + step.wait_for.timeout if step.wait_for else timedelta()
            latest = start + step.delay + step.expires_after + timedelta(days=1)
            longest = max(longest, latest)
        return longest

    @property
    def version(self) -> str:
        """Hash of the content: comments and spelling of durations do not count."""
        return hashlib.sha256(json.dumps(self.definition(), sort_keys=True, ensure_ascii=False).encode()).hexdigest()[
            :16
        ]

    def definition(self) -> dict[str, Any]:
        """Plain JSON of the campaign, as stored with its version; durations in seconds."""
        every = self.at_most_every.total_seconds() if self.at_most_every else None
        return self.model_dump(mode="json", by_alias=True) | {
            "rests_on_absence": self.rests_on_absence,
            "every_channel": self.every_channel,
            "feeds": list(self.feeds),
            "at_most_every_seconds": every,
        }

    def in_words(self) -> list[str]:
        """The campaign in sentences, for people who do not read YAML."""
        lines = [
            f"Starts when {self.trigger.in_words()} (not longer ago than {in_words(self.trigger.max_age)}), "
            f"once per {self.trigger.once_per}."
        ]
        for step in self.steps:
            lines.append(
                f"{step.id}: {_step_in_words(step)}; not later than {in_words(step.expires_after)} after it was due."
            )
        if self.audience.only_if:
            lines.insert(1, f"Only for whom {self.audience.only_if.in_words()}.")
        if self.needs:
            lines.append(f"Needs a source that delivers: {', '.join(self.needs)}.")
        if self.exit_on:
            lines.append(f"Ends early when: {', '.join(self.exit_on)}.")
        if self.reentry != "once_per_anchor":
            again = "never" if self.reentry == "never" else f"not before {self.reentry.after} have passed"
            lines.append(f"The same customer again: {again}.")
        if self.feeds:
            lines.append(f"Waits while one of these feeds of the customer's shop is stale: {', '.join(self.feeds)}.")
        if self.stop_while:
            lines.append(f"Sends nothing while: {', '.join(self.stop_while)}.")
        if self.audience.holdout:
            lines.append(f"{self.audience.holdout:.0%} of the customers are left alone, to measure the effect.")
        return lines


def _facts(step: Step) -> set[str | None]:
    """Whose not having happened lets a step go: what it waits for, what its condition asks."""
    leaves = [leaf for _, leaf in step.only_if.leaves()] if step.only_if else []
    return {step.wait_for.event if step.wait_for else None, *(leaf.happened for leaf in leaves)}


def _rests(step: Step) -> bool:
    """Would a dead feed make this step's condition true, or its waiting end?"""
    return (step.wait_for is not None and step.wait_for.event in NEGATIVE) or _unsure(step.only_if)


def _unsure(condition: Condition | None) -> bool:
    """Could a dead feed make this condition true?"""
    leaves = [leaf for _, leaf in condition.leaves()] if condition else []
    return any(leaf.in_segment or leaf.happened in NEGATIVE or leaf.feature in RESTING for leaf in leaves)


def _step_in_words(step: Step) -> str:
    if step.after is not None:
        when = f"{in_words(step.after)} later"
    elif step.on_day is not None:
        when = f"on local day {step.on_day}"
    else:
        when = "at once"
    if step.days_by_category:
        when += " (" + ", ".join(f"{c}: {d}" for c, d in step.days_by_category.items()) + ")"
    if step.wait_for:
        wait = step.wait_for
        when += f" once the customer has {wait.event}, waiting {in_words(wait.timeout)} (else: {wait.otherwise})"
    if step.only_if:
        when += f", only if {step.only_if.in_words()}"
    if step.channel or step.channels:
        when += f", by {' or '.join(step.channels or (step.channel or '',))}"
    if step.office_hours:
        when += ", in office hours"
    if step.promotes:
        when += ", only to who agreed to marketing"
    if step.branch:
        when += f", as an alternative of “{step.branch}”"
    if step.variants:
        when += ", as " + " or ".join(f"{v.name} ({v.weight})" for v in step.variants)
    return when + (f", with a {step.coupon.percent} % coupon" if step.coupon else "")


def load_campaign(path: Path) -> Campaign:
    """The campaign in one file, its tables read. Raises InputError with every fault as file:line: key: message."""
    campaign = yamlfile.load(path, Campaign)
    file = yamlfile.shown(path)
    if campaign.id != path.stem:
        raise InputError([Fault(file, 1, "id", f'"{campaign.id}" must be the file name, "{path.stem}"')])
    faults, steps = [], []
    for number, step in enumerate(campaign.steps):
        steps.append(step)
        if isinstance(step.on_day_by_category, TableName):
            loc = ("steps", number, "on_day_by_category", "table")
            place = Fault(file, yamlfile.line_of(path, loc), yamlfile.key_of(loc), "")
            try:
                days = load_table(path.absolute().parents[1] / "tables", step.on_day_by_category.table, place)
                steps[-1] = step.model_copy(update={"on_day_by_category": days})
            except InputError as error:
                faults += error.faults
    campaign = campaign.model_copy(update={"steps": tuple(steps)})
    for at, what in campaign_rules.broken(campaign):
        faults.append(Fault(file, yamlfile.line_of(path, at), yamlfile.key_of(at), what))
    if faults:
        raise InputError(sorted(faults, key=lambda fault: fault.line))
    return campaign


def load_campaigns(folder: Path) -> list[Campaign]:
    """All campaigns of a folder, by id. Raises InputError with the faults of all files at once."""
    found, faults = [], []
    for path in sorted(folder.glob("[!.]*.yml")):
        try:
            found.append(load_campaign(path))
        except InputError as error:
            faults += error.faults
    if faults:
        raise InputError(faults)
    return found
