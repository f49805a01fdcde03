"""Why did a customer get a message, or not: every predicate as it holds at an instant, and everything that was stored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, Literal

from sqlalchemy import Connection, Row

from postlude import db, freshness, switch
from postlude.calendar import Calendar
from postlude.campaign import Campaign, Step
from postlude.errors import InputError

# reasons whose detail names another message, and nobody's data
SAYS_WHO = ("capped", "asked_recently")


@dataclass(frozen=True)
class Line:
    """One predicate or one stored fact. verdict: yes speaks for sending, no against it, and fact is neither."""

    campaign: str
    predicate: str
    verdict: Literal["yes", "no", "fact"]
    detail: str

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def people(conn: Connection, wanted: str) -> list[Row[Any]]:
    """Customers with this id, source customer id or e-mail address. Raises InputError when there is none."""
    found = list(db.run(conn, "70_why_person", wanted=wanted))
    if not found:
        raise InputError("no customer has this id, source customer id or e-mail address")
    return found


@dataclass(frozen=True)
class Shared:
    """What is read once of a customer for all campaigns that are asked about."""

    stops: Sequence[switch.Stop]
    feeds: Sequence[freshness.Feed]
    facts: Mapping[str, Row[Any]]  # by campaign id: what holds now
    stored: Mapping[str, Sequence[Row[Any]]]  # by campaign id: passages, messages and refusals


def shared(
    conn: Connection,
    person: Row[Any],
    campaigns: Iterable[Campaign],
    calendar: Calendar,
    now: datetime,
    stops: Sequence[switch.Stop] | None = None,
) -> Shared:
    """What `explain` needs of a customer for any of these campaigns, in a few statements for all of them.

    stops: the kill switches in force, as `switch.at` gives them; None: the table's as of `now`.
    """
    pressure = calendar.pressure_in_force
    holidays = {h["country"]: h["days"] for h in calendar.holidays_around(now, timedelta(0))}.get(person.country, [])
    closed = [*(str(day) for day in calendar.blackouts), *holidays]
    asked = []
    for campaign in campaigns:
        window, every = calendar.window_of(campaign.id), campaign.at_most_every
        asked.append(
            {
                "campaign": campaign.id, "channel": campaign.channel, "channels": campaign.every_channel, "kind": campaign.kind,
                "topic": campaign.topic, "stop_while": campaign.stop_while, "segment": campaign.trigger.enters,
                "draws": campaign.control_groups, "rules": pressure.rules,
                "reach": f"{max(pressure.reach, every or pressure.reach).total_seconds()} seconds",
                "every": str(every.total_seconds()) if every else None, "opens": window.opens, "closes": window.closes,
                "weekdays": calendar.weekday_numbers(campaign.id), "blackouts": closed,
            }
        )  # fmt: skip
    facts = db.run(
        conn, "71_why_now", customer=person.customer_id, zone=person.zone, campaigns=db.dumps(asked), now=now
    )  # fmt: skip
    stored: dict[str, list[Row[Any]]] = {}
    for row in db.run(conn, "72_why_history", customer=person.customer_id, now=now):
        stored.setdefault(row.campaign, []).append(row)
    stops = switch.as_of(conn, now) if stops is None else stops
    return Shared(stops, freshness.verdicts(conn, now), {row.campaign: row for row in facts}, stored)


def explain(
    conn: Connection,
    person: Row[Any],
    campaign: Campaign,
    calendar: Calendar,
    now: datetime,
    known: Shared | None = None,
) -> list[Line]:
    """The trace of one campaign for one customer as of `now`. It only reads, and holds no name or address.

    known: as `shared` gives it for this customer, campaign and instant; None: it is read here.
    """
    known = known or shared(conn, person, [campaign], calendar, now)
    facts = known.facts[campaign.id]
    lines: list[Line] = []

    def say(predicate: str, holds: bool | None, detail: str) -> None:
        verdict: Literal["yes", "no", "fact"] = "fact" if holds is None else "yes" if holds else "no"
        lines.append(Line(campaign.id, predicate, verdict, detail))

    covering = [
        stop
        for stop in known.stops
        if any(stop.covers(campaign.id, name, person.source_id, campaign.kind) for name in campaign.every_channel)
    ]
    stopped = "; ".join(f"{stop}: {stop.why}" for stop in covering) or "no stop is in force for it"
    say("not stopped", not covering, stopped)
    _trigger(conn, person, campaign, calendar, facts, now, say)
    reachable = {
        None: "has an address and agreed to it",
        "no_consent": f"has not agreed to {campaign.topic} by {' or '.join(campaign.every_channel)}",
        "consent_aged": "the consent was implied by a purchase or an inquiry, and that was too long ago for the law of their country",
        "consent_notice_due": "agreed, and by the law of their country must be told so again first (`postlude consents due`)",
        "no_address": "has no usable address",
        "marketplace": "bought through a marketplace only",
    }
    say(
        "may be written to",
        facts.unreachable is None,
        reachable.get(facts.unreachable, f"suppressed: {facts.unreachable}"),
    )
    say("nothing open", facts.stop is None, facts.stop or "no open return or ticket")
    left_alone = f"{campaign.audience.holdout:.0%} of customers are left alone"
    if facts.holdout == "":
        left_alone = "in the global control group, which no marketing campaign writes to"
    say("not in the holdout", facts.holdout is None, left_alone)
    for feed in known.feeds:
        if feed.source_id == person.source_id and feed.entity in campaign.feeds:
            say(f"{feed.entity[:-1]} feed is fresh", feed.reason is None, f"{feed}; this campaign rests on absence")
    for step in campaign.steps:
        if step.only_if or step.branch:
            _step(conn, person, campaign, step, now, say)
    pause = calendar.paused(campaign.id, campaign.kind, now)
    say("not paused", pause is None, f"paused until {pause.last}: {pause.why}" if pause else "no pause in the calendar")
    if campaign.kind == "marketing":
        full = f"{facts.winner} has the place" + (f" until {facts.free_at:%Y-%m-%d %H:%M} UTC" if facts.free_at else "")
        rules = "; ".join(rule["words"] for rule in calendar.pressure_in_force.rules) or "no caps"
        say("below the cap", facts.pressed is None, f"{facts.pressed}: {full}" if facts.pressed else rules)
        said = {"profile": "", "country": f" (the one clock of {person.country})", "shop": " (the shop’s)"}
        zone = person.zone + said[person.zone_from]
        opens = f"{facts.opening:%Y-%m-%d %H:%M} UTC" if facts.opening else "not within 90 days"
        say(
            "send window is open",
            facts.opening is not None and facts.opening <= now,
            f"next opening {opens}, on the clock of {zone}",
        )
    for row in known.stored.get(campaign.id, ()):
        until = f", {row.until:%Y-%m-%d %H:%M} UTC" if row.until else ""
        say(
            f"{row.what} {row.name}",
            None,
            f"{row.at:%Y-%m-%d %H:%M} UTC: {row.state}{' (' + row.reason + ')' if row.reason else ''}{until}"
            f"{': ' + row.detail if row.reason in SAYS_WHO else ''}",
        )
    return lines


def _trigger(
    conn: Connection, person: Row[Any], campaign: Campaign, calendar: Calendar, facts: Row[Any], now: datetime, say: Any
) -> None:
    reach = now - campaign.trigger.max_age
    if campaign.trigger.enters:
        since = facts.member_since
        detail = (
            f"in “{campaign.trigger.enters}” since {since:%Y-%m-%d %H:%M} UTC"
            if since
            else f"not in “{campaign.trigger.enters}”"
        )
        if person.stage:
            detail += f"; stage {person.stage}, last order {person.recency_days} days ago"
        say(
            "trigger",
            since is not None and since > reach,
            detail + f"; counts when entered after {reach:%Y-%m-%d %H:%M} UTC",
        )
        return
    # the same statement as at planning, about one customer
    dates = calendar.dates_of(campaign.trigger.occasion) if campaign.trigger.occasion else []
    name, params = campaign.trigger.candidates(now, dates, list(campaign.audience.within), customer=person.customer_id)
    mine = sorted(db.kept_by(conn, name, **params), key=lambda row: row.anchor_at, reverse=True)
    if not campaign.trigger.event:
        words = campaign.trigger.in_words()
        for row in mine:
            doubt = f"; not believed: {row.objection}" if row.objection else ""
            say("trigger", row.objection is None, f"{words}: {row.anchor_at:%Y-%m-%d %H:%M} UTC{doubt}")
        if not mine:
            say("trigger", False, f"{words}: not after {reach:%Y-%m-%d %H:%M} UTC")
        return
    began = {row.order_id: row.anchor_at for row in mine}
    anchors = list(
        db.run(conn, "72_why_anchors", customer=person.customer_id, exit_on=db.dumps(campaign.exit_on), now=now)
    )
    if not anchors:
        say("trigger", False, "no orders")
    for order in anchors:
        happened = began.get(order.order_id)
        event = campaign.trigger.event.replace("_", " ")
        what = f"order {order.number}: {event} {happened:%Y-%m-%d %H:%M} UTC" if happened else (
            f"order {order.number}: not {event} between {reach:%Y-%m-%d %H:%M} and {now:%Y-%m-%d %H:%M} UTC"
        )  # fmt: skip
        say("trigger", happened is not None, what)
        say(f"order {order.number} still open for it", order.fact is None, order.fact or "nothing has ended it")


def _step(conn: Connection, person: Row[Any], campaign: Campaign, step: Step, now: datetime, say: Any) -> None:
    """What the step's conditions say now, for the passage that is under way."""
    reason = db.run(
        conn, "72_why_step", customer=person.customer_id, campaign=campaign.id, step=step.id, now=now
    ).first()  # fmt: skip
    told = f"only if {step.only_if.in_words()}" if step.only_if else "everybody else"
    if step.branch:
        told += f", as one of “{step.branch}”"
    if reason is None:
        say(f"condition of {step.id}", None, f"{told}; no passage is under way")
    else:
        say(f"condition of {step.id}", reason.refused is None, f"{told}: {reason.refused or 'holds'}")
