"""What the calendar makes of campaigns: moved delays, one-off sends, and whether all it names is there."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping

from postlude import campaign_rules
from postlude.calendar.model import Calendar, Delay, Special
from postlude.campaign import Campaign, Step
from postlude.errors import Fault
from postlude.settings import settings
from postlude.timing import in_words
from postlude.yamlfile import did_you_mean

Fallible = Iterator[tuple[str, str]]


def steered(campaign: Campaign, calendar: Calendar) -> Campaign:
    """The campaign with the delays the calendar gives its steps. Without any it is the campaign itself."""
    moved = {delay.step: delay for delay in calendar.delays if delay.campaign == campaign.id}
    if not moved:
        return campaign
    steps = tuple(_moved(step, moved[step.id]) if step.id in moved else step for step in campaign.steps)
    return campaign.model_copy(update={"steps": steps})


def _moved(step: Step, delay: Delay) -> Step:
    if delay.on_day is None:
        return step.model_copy(update={"after": delay.after, "on_day": None, "at": None, "on_day_by_category": {}})
    shift = delay.on_day - (step.on_day if step.on_day is not None else delay.on_day)
    categories = {category: max(0, days + shift) for category, days in step.days_by_category.items()}
    at = delay.at if delay.at is not None else step.at
    return step.model_copy(
        update={"on_day": delay.on_day, "after": None, "at": at, "on_day_by_category": categories},
    )


def one_off(special: Special, calendar: Calendar) -> Campaign:
    """The campaign of a one-off send: one step on one day, for the members of one segment."""
    opens = special.at or calendar.window_of(special.id).opens
    life = dt.datetime.combine(special.last + dt.timedelta(days=1), dt.time()) - dt.datetime.combine(
        special.date, opens
    )
    step = {
        "id": special.kind, "template": special.template, "on_day": 0, "at": special.at,
        "expires_after": max(life, dt.timedelta(hours=1)), "coupon": special.coupon,
    }  # fmt: skip
    return Campaign.model_validate({
        "id": special.id, "name": special.name, "owner": "marketing", "description": special.why,
        "trigger": {"occasion": special.id, "entry": "existing", "max_age": dt.timedelta(days=1), "once_per": "episode"},
        "audience": {"within": (special.segment,)}, "why": special.customer_why, "steps": (step,),
    })  # fmt: skip


def one_offs(
    calendar: Calendar, now: dt.datetime | None = None, near: dt.timedelta = dt.timedelta(days=2)
) -> list[Campaign]:
    """The campaigns of all one-off sends; now: only those that are sent about that instant."""
    day = now.date() if now else None
    return [
        one_off(special, calendar)
        for special in calendar.specials
        if day is None or special.date - near <= day <= special.last + near
    ]


# ---------------------------------------------------------------- is it possible?


def faults_in(calendar: Calendar, campaigns: Mapping[str, Campaign]) -> list[Fault]:
    """What pydantic cannot see: names that are not there, days that overlap, delays that cannot be kept."""
    found = [
        *_named(calendar, campaigns),
        *_days(calendar),
        *_delays(calendar, campaigns),
        *_one_offs(calendar, campaigns),
    ]
    return [Fault("calendar", 0, key, what) for key, what in found]


def _named(calendar: Calendar, campaigns: Mapping[str, Campaign]) -> Fallible:
    known = [*campaigns, *(special.id for special in calendar.specials)]
    named = [(f"windows/{name}", name) for name in calendar.windows]
    named += [(f"pauses/{p.campaign}/{p.first}", p.campaign) for p in calendar.pauses if p.campaign != "all"]
    for cap in calendar.pressure.caps if calendar.pressure else ():
        named += [("pressure/caps", name) for name in cap.campaigns or ()]
    for key, name in named:
        if name not in known:
            yield key, f'there is no campaign "{name}"{did_you_mean(name, known)}'


def _days(calendar: Calendar) -> Fallible:
    seen: set[dt.date] = set()
    for blackout in calendar.blackout_days:
        if blackout.date in seen:
            yield f"blackout_days/{blackout.date}", "is a blackout day already; take one of the two out"
        seen.add(blackout.date)
    for number, pause in enumerate(calendar.pauses):
        for other in calendar.pauses[number + 1 :]:
            if pause.campaign == other.campaign and pause.first <= other.last and other.first <= pause.last:
                yield (
                    f"pauses/{other.campaign}/{other.first}",
                    f"overlaps the pause from {pause.first} to {pause.last}; lengthen that one instead",
                )


def _delays(calendar: Calendar, campaigns: Mapping[str, Campaign]) -> Fallible:
    twice: set[tuple[str, str]] = set()
    for delay in calendar.delays:
        key = f"delays/{delay.campaign}/{delay.step}"
        campaign = campaigns.get(delay.campaign)
        if campaign is None:
            yield key, f'there is no campaign "{delay.campaign}"{did_you_mean(delay.campaign, campaigns)}'
            continue
        ids = [step.id for step in campaign.steps]
        if delay.step not in ids:
            yield key, f'{campaign.id} has no step "{delay.step}"{did_you_mean(delay.step, ids)}'
            continue
        if (delay.campaign, delay.step) in twice:
            yield key, "is moved twice; keep one of the two"
        twice.add((delay.campaign, delay.step))
        moved = steered(campaign, calendar)
        number = ids.index(delay.step)
        yield from ((key, what) for _, what in campaign_rules.broken(moved))
        yield from ((key, what) for what in _late(calendar, campaign, moved.steps[number], delay))


def _late(calendar: Calendar, campaign: Campaign, step: Step, delay: Delay) -> Iterator[str]:
    window = calendar.window_of(campaign.id)
    if campaign.kind == "marketing" and step.at and not window.opens <= step.at < window.closes:
        yield f"{step.at:%H:%M} lies outside the send window {window.opens:%H:%M}–{window.closes:%H:%M}: it would go the day after"
    old = next(s for s in campaign.steps if s.id == step.id)
    if step.wait_for or old.wait_for:
        return
    # the passages that are in flight: their mail would be due when it is no longer true
    if delay.in_flight == "migrate" and step.delay + step.expires_after <= old.delay - old.expires_after:
        yield (
            f"those in flight would be {in_words(old.delay - step.delay)} past due, and the mail expires after "
            f"{in_words(step.expires_after)}: all of them would lose it; choose finish, or a later day"
        )


def _one_offs(calendar: Calendar, campaigns: Mapping[str, Campaign]) -> Fallible:
    segments = sorted(path.stem for path in (settings().include / "segments").glob("[!.]*.y*ml"))
    templates = settings().include / "templates"
    ids: set[str] = set()
    for special in calendar.specials:
        key = f"specials/{special.id}"
        if special.id in campaigns or special.id in ids:
            yield key, f'there is a campaign "{special.id}" already; take another id'
        ids.add(special.id)
        if special.segment not in segments:
            yield key, f'there is no segment "{special.segment}"{did_you_mean(special.segment, segments)}'
        if not (templates / f"{special.template}.mjml.j2").is_file():
            known = [f"{path.parent.name}/{path.name.partition('.')[0]}" for path in templates.glob("[!_]*/*.mjml.j2")]
            yield key, f'there is no template "{special.template}"{did_you_mean(special.template, known)}'
        window = calendar.window_of(special.id)
        if special.at and not window.opens <= special.at < window.closes:
            yield key, f"{special.at:%H:%M} lies outside the send window {window.opens:%H:%M}–{window.closes:%H:%M}"
        open_days = [
            day
            for day in (special.date + dt.timedelta(days=n) for n in range((special.last - special.date).days + 1))
            if day not in calendar.blackouts and day.isoweekday() in calendar.weekday_numbers(special.id)
        ]
        if not open_days:
            yield key, f"no mail may go between {special.date} and {special.last}: blackout days, or closed weekdays"
        if special.coupon and special.until:
            ends = special.date + special.coupon.valid
            if ends < special.until:
                yield (
                    key,
                    f"the coupon runs out on {ends}, before the offer ends ({special.until}); make it valid longer",
                )
