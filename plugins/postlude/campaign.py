"""What a campaign file may say. The models are the manual: docs/campaign.schema.json is exported from them for editors.

A campaign is a named sequence of steps for one audience, with a trigger, a goal and exit rules; one YAML file.
"""

from __future__ import annotations

import hashlib
import json
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from postlude import yamlfile
from postlude.errors import Fault, InputError
from postlude.timing import Duration, WallTime, in_words
from postlude.yamlfile import Strict

Slug = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{1,47}$", description="lower-case letters, digits and _")]
ExitRule = Literal["ordered", "reviewed", "returned", "cancelled"]
StopRule = Literal["return_open", "ticket_open"]
NEGATIVE = frozenset({"ordered", "reviewed"})


class Trigger(Strict):
    """What makes a customer a candidate: an event of an order, or entering a segment."""

    event: Literal["placed", "paid", "shipped", "delivered"] | None = Field(None, description="an event of an order")
    enters: Slug | None = Field(None, description="the customer enters this segment (include/segments/<name>.yml)")
    entry: Literal["from_now_on", "existing"] = Field(
        description="from_now_on: only what happens after the campaign first ran; existing: also what happened up to max_age ago"
    )
    max_age: Duration = Field(description="an event older than this enrols nobody: no old news")
    once_per: Literal["order", "episode", "customer"] = Field(
        "order",
        description="order: each order once; episode: each stay in the segment once; customer: once in a lifetime",
    )

    @model_validator(mode="after")
    def _one_kind(self) -> Trigger:
        if (self.event is None) == (self.enters is None):
            raise ValueError('name either "event" or "enters", and not both')
        if self.enters and self.once_per == "order":
            raise ValueError('a segment trigger needs "once_per: episode" or "once_per: customer"')
        if self.event and self.once_per == "episode":
            raise ValueError('an order event needs "once_per: order" or "once_per: customer"')
        return self


class Audience(Strict):
    """Who may be enrolled: the candidates, minus other segments, minus a control group that is left alone."""

    exclude: tuple[Slug, ...] = Field((), description="segments whose members are not enrolled")
    holdout: float = Field(
        0.0, ge=0, le=0.5, description="share of customers left alone to measure the effect, 0 to 0.5"
    )


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
    template: str = Field(pattern=r"^[a-z0-9_]+/[a-z0-9_]+$", description="folder/name in include/templates")
    on_day: int | None = Field(None, ge=0, le=730, description="so many local calendar days after the anchor event")
    on_day_by_category: dict[str, Annotated[int, Field(ge=0, le=730)]] = Field(
        {}, description="days by product category of the order's main item, where they differ from on_day"
    )
    after: Duration | None = Field(
        None, description="exact time after the anchor event, e.g. 36 hours, instead of on_day"
    )
    at: WallTime | None = Field(None, description="local time of day with on_day; default: when the send window opens")
    expires_after: Duration = Field(description="not sent later than this after it was due")
    coupon: Coupon | None = None

    @model_validator(mode="after")
    def _one_delay(self) -> Step:
        if (self.on_day is None) == (self.after is None):
            raise ValueError('name either "on_day" (local calendar days) or "after" (exact time), and not both')
        if self.after is not None and (self.at or self.on_day_by_category):
            raise ValueError('"at" and "on_day_by_category" go with "on_day", not with "after"')
        if self.expires_after < timedelta(hours=1):
            raise ValueError("expires_after must be at least 1 hour, or a short pause would lose the message")
        return self

    @property
    def latest(self) -> timedelta:
        """Longest time from the anchor to the end of this step's life, with a day for zones and windows."""
        days = max([self.on_day or 0, *self.on_day_by_category.values()])
        return (self.after if self.after is not None else timedelta(days=days)) + self.expires_after + timedelta(days=1)


class Campaign(Strict):
    """A campaign file, include/campaigns/<id>.yml."""

    id: Slug
    name: str = Field(min_length=1, max_length=80)
    description: str = Field("", description="for whom, why, and what it should do for them")
    owner: str = Field(min_length=1, description="who answers for it")
    kind: Literal["marketing", "transactional"] = "marketing"
    topic: Slug = Field("marketing", description="the consent it needs, for marketing")
    channel: Slug = "email"
    priority: int = Field(5, ge=1, le=9, description="1 goes first when several campaigns want the same customer")
    trigger: Trigger
    audience: Audience = Audience()  # type: ignore[call-arg]
    approval: Approval = Approval()  # type: ignore[call-arg]
    goal: ExitRule | None = Field(None, description="the exit that counts as success")
    exit_on: tuple[ExitRule, ...] = Field(
        (), description="facts that end the passage, checked at planning and at hand-over"
    )
    stop_while: tuple[StopRule, ...] = Field(
        ("return_open", "ticket_open"), description="while this is so, nothing is sent"
    )
    needs_fresh_orders: bool | None = Field(
        None,
        description="wait while the order feed is stale; default: derived from the rules (yes when one rests on absence)",
    )
    at_most_every: Duration | None = Field(
        None, description="no second message of this campaign to a customer within this time"
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
        if self.trigger.enters and ({"reviewed", "returned", "cancelled"} & set(self.exit_on)):
            raise ValueError("a segment trigger has no order: only ordered can be in exit_on")
        return self

    @property
    def rests_on_absence(self) -> bool:
        """Would a dead feed make it mail people it should not? Then it waits for fresh data."""
        if self.needs_fresh_orders is not None:
            return self.needs_fresh_orders
        return self.kind == "marketing" and (self.trigger.enters is not None or bool(NEGATIVE & set(self.exit_on)))

    @property
    def timeline(self) -> timedelta:
        """From the anchor to the moment after which no step can be sent any more."""
        return max(step.latest for step in self.steps)

    @property
    def version(self) -> str:
        """Hash of the content: comments and spelling of durations do not count."""
        return hashlib.sha256(json.dumps(self.definition(), sort_keys=True, ensure_ascii=False).encode()).hexdigest()[
            :16
        ]

    def definition(self) -> dict[str, Any]:
        """Plain JSON of the campaign, as stored with its version; durations in seconds."""
        every = self.at_most_every.total_seconds() if self.at_most_every else None
        return self.model_dump(mode="json") | {
            "rests_on_absence": self.rests_on_absence,
            "at_most_every_seconds": every,
        }

    def in_words(self) -> list[str]:
        """The campaign in sentences, for people who do not read YAML."""
        start = (
            f"an order is {self.trigger.event}" if self.trigger.event else f"a customer enters “{self.trigger.enters}”"
        )
        lines = [
            f"Starts when {start} (not longer ago than {in_words(self.trigger.max_age)}), once per {self.trigger.once_per}."
        ]
        for step in self.steps:
            when = f"{in_words(step.after)} later" if step.after is not None else f"on local day {step.on_day}"
            if step.on_day_by_category:
                when += " (" + ", ".join(f"{c}: {d}" for c, d in step.on_day_by_category.items()) + ")"
            gift = f", with a {step.coupon.percent} % coupon" if step.coupon else ""
            lines.append(f"{step.id}: {when}{gift}; not later than {in_words(step.expires_after)} after it was due.")
        if self.exit_on:
            lines.append(f"Ends early when: {', '.join(self.exit_on)}.")
        if self.stop_while:
            lines.append(f"Sends nothing while: {', '.join(self.stop_while)}.")
        if self.audience.holdout:
            lines.append(f"{self.audience.holdout:.0%} of the customers are left alone, to measure the effect.")
        return lines


def load_campaign(path: Path) -> Campaign:
    """The campaign in one file. Raises InputError with every fault as file:line: key: message."""
    campaign = yamlfile.load(path, Campaign)
    if campaign.id != path.stem:
        raise InputError(
            [Fault(yamlfile.shown(path), 1, "id", f'"{campaign.id}" must be the file name, "{path.stem}"')]
        )
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
