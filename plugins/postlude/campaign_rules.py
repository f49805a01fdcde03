"""What is wrong between the keys of a campaign file: rules no single key can break. Each is told at the key to mend."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING

from postlude.timing import in_words
from postlude.yamlfile import did_you_mean

if TYPE_CHECKING:
    from postlude.campaign import Campaign, Step

Place = tuple[str | int, ...]
Broken = Iterator[tuple[Place, str]]

ABOUT_AN_ORDER = ("reviewed", "returned", "cancelled", "rated_low", "shipped", "delivered")
RETURNS = ("returned", "return_received", "refunded", "return_moved")
LONGEST_DELAY = timedelta(days=730)
LONGEST_LIFE = timedelta(days=90)


def broken(campaign: Campaign) -> Broken:
    """Every broken rule as the place of the key and what is wrong; how to mend it."""
    yield from _trigger(campaign)
    yield from _endings(campaign)
    yield from _feeds(campaign)
    yield from _transactional(campaign)
    yield from _order_of_steps(campaign)
    yield from _branches(campaign.steps)
    for number, step in enumerate(campaign.steps):
        for place, what in (*_step(campaign, step), *_conditions(campaign.steps, number)):
            yield ("steps", number, *place), what


def _trigger(campaign: Campaign) -> Broken:
    trigger, audience = campaign.trigger, campaign.audience
    if trigger.days_before and not (trigger.date or trigger.occasion):
        yield ("trigger", "days_before"), 'goes with "date" or "occasion": nothing else is known beforehand'
    elif trigger.max_age < timedelta(days=1) and (trigger.date or trigger.occasion):
        yield ("trigger", "max_age"), "must be at least 1 day for a date, or customers of other time zones are missed"
    if campaign.reentry != "once_per_anchor" and trigger.once_per == "customer":
        yield ("reentry",), '"once_per: customer" is once in a lifetime already; take one of the two out'
    for place, leaf in audience.only_if.leaves(("audience", "only_if")) if audience.only_if else ():
        if leaf.got or leaf.happened:
            word = "got" if leaf.got else "happened"
            what = f'"{word}" asks what came since the passage began, and none has begun; use the only_if of a step'
            yield place, what
    for number, segment in enumerate(audience.exclude):
        if segment == trigger.enters:
            yield (
                ("audience", "exclude", number),
                f'everybody who enters "{segment}" is in it: nobody would be enrolled',
            )
        if segment in audience.within:
            yield (
                ("audience", "exclude", number),
                f'"{segment}" is also in audience.within: nobody of it would be enrolled',
            )


def _endings(campaign: Campaign) -> Broken:
    trigger = campaign.trigger
    for number, rule in enumerate(campaign.exit_on):
        if trigger.event is None and trigger.external is None and rule in ABOUT_AN_ORDER:
            yield ("exit_on", number), f'"{rule}" is about an order, and this trigger has no order; take it out'
        if rule == "over" and trigger.external is None:
            yield (
                ("exit_on", number),
                '"over" needs a trigger by "external": what it tells is what can be over; take it out',
            )
        if rule == "left_segment" and trigger.enters is None:
            yield ("exit_on", number), '"left_segment" needs a trigger that "enters" a segment; take it out'
        if (rule == "cancelled" and trigger.event == "cancelled") or (rule == "returned" and trigger.event in RETURNS):
            yield ("exit_on", number), f'the trigger "{trigger.event}" would end the passage it begins; take it out'
    if trigger.event in RETURNS and "return_open" in campaign.stop_while:
        at: Place = ("stop_while",) if "stop_while" in campaign.model_fields_set else ("trigger", "event")
        yield at, 'an open return would stop the mail about it; write "stop_while: [ticket_open]"'


def _transactional(campaign: Campaign) -> Broken:
    """Who bought is told, always and at once: no control group, nothing that stops it, and no promotion unasked."""
    if campaign.kind != "transactional":
        for number, step in enumerate(campaign.steps):
            if step.promotes:
                yield ("steps", number, "promotes"), "is for transactional campaigns; a marketing one promotes anyway"
        return
    if campaign.audience.holdout:
        yield ("audience", "holdout"), "what people must be told is kept from nobody; take it out"
    if campaign.stop_while:
        yield ("stop_while",), "transactional mail stops for nothing; take it out"
    if campaign.at_most_every:
        yield ("at_most_every",), "transactional mail is told once for each fact, however many there are; take it out"
    for number, step in enumerate(campaign.steps):
        if step.coupon and not step.promotes:
            what = 'a coupon makes this mail advertising; write "promotes: true", or take the coupon out'
            yield ("steps", number, "coupon"), what
        same = [other for other in campaign.steps if other.branch and other.branch == step.branch]
        if step.promotes and all(other.promotes for other in same):
            what = "who did not agree to marketing would get nothing; add an alternative of the same branch that does not promote"
            yield ("steps", number, "promotes"), what


def _feeds(campaign: Campaign) -> Broken:
    named = campaign.depends_on
    if named is None:
        return
    if campaign.kind == "transactional":
        yield ("depends_on",), "transactional mail waits for no feed; take it out"
    elif campaign.needs_fresh_orders is False:
        yield ("depends_on",), '"needs_fresh_orders: false" says it waits for no feed; keep one of the two'
    else:
        for feed in campaign.derived_feeds:
            if feed not in named:
                what = f'leaves out "{feed}", and the rules rest on what that feed does not say; add it'
                yield ("depends_on",), what
    for number, feed in enumerate(named):
        if feed in named[:number]:
            yield ("depends_on", number), f'"{feed}" is named twice; take one out'


def _order_of_steps(campaign: Campaign) -> Broken:
    """Steps stand in the order of time, and not closer than the campaign itself allows."""
    latest: tuple[timedelta, Step] | None = None
    for number, step in enumerate(campaign.steps):
        if step.wait_for or step.days_by_category:
            latest = None  # when it will be is not known here
            continue
        start = step.delay
        key = "after" if step.after is not None else "on_day"
        if latest is not None:
            before, other = latest
            if start + timedelta(days=1) <= before:
                what = f'would be due before "{other.id}", which stands above it; put the steps in the order of time'
                yield ("steps", number, key), what
            alternatives = step.branch is not None and step.branch == other.branch
            every = campaign.at_most_every
            if (
                every
                and not alternatives
                and not (step.only_if or other.only_if)
                and start - before + timedelta(days=1) < every
            ):
                what = f'comes {in_words(start - before)} after "{other.id}", but at_most_every is {in_words(every)}: never sent'
                yield ("steps", number, key), what
        latest = (start, step)


def _branches(steps: tuple[Step, ...]) -> Broken:
    closed: set[str] = set()
    for number, step in enumerate(steps):
        above = steps[number - 1] if number else None
        below = steps[number + 1] if number + 1 < len(steps) else None
        if above and above.branch and above.branch != step.branch:
            closed.add(above.branch)
        if step.branch is None:
            continue
        same = [other for other in steps if other.branch == step.branch]
        if step.branch in closed:
            yield (
                ("steps", number, "branch"),
                f'the alternatives of "{step.branch}" must stand together; move it up to the others',
            )
        if len(same) == 1:
            yield (
                ("steps", number, "branch"),
                f'"{step.branch}" has one step only; name the alternative, or use only_if alone',
            )
        if step.only_if is None and below and below.branch == step.branch:
            what = f'without only_if it takes everybody, "{below.id}" would never be sent; put it last in the branch'
            yield ("steps", number, "branch"), what
        if _timing(step) != _timing(same[0]):
            what = f'is not due at the same time as "{same[0].id}", its alternative; give both the same on_day, after, at, wait_for'
            yield ("steps", number, "branch"), what


def _timing(step: Step) -> tuple[object, ...]:
    return step.on_day, step.days_by_category, step.after, step.at, step.wait_for


def _step(campaign: Campaign, step: Step) -> Broken:
    if step.after is not None and step.after > LONGEST_DELAY:
        yield ("after",), "lies more than 730 days ahead; start a campaign of its own for that"
    if step.expires_after > LONGEST_LIFE:
        yield ("expires_after",), "is longer than 90 days; a message that old is not true any more"
    if step.wait_for and step.expires_after < timedelta(days=1):
        yield (
            ("expires_after",),
            "must be at least 1 day with wait_for: what happened is looked at when the campaign plans, once a day",
        )
    if step.days_by_category and campaign.trigger.event is None and campaign.trigger.external is None:
        yield ("on_day_by_category",), "needs an order for its main item; use it with a trigger by event"
    no_order = campaign.trigger.event is None and campaign.trigger.external is None  # an outside event may have one
    if step.wait_for and no_order and step.wait_for.event in ("reviewed", "returned"):
        yield ("wait_for", "event"), f'"{step.wait_for.event}" is about an order, and this trigger has no order'
    if step.coupon and step.coupon.valid < timedelta(days=1):
        yield ("coupon", "valid"), "is shorter than a day: the code would be dead before the mail is read"
    if len(step.variants) == 1:
        yield ("variants",), 'there is one variant only; name a second, or write "template" instead'
    names = [variant.name for variant in step.variants]
    for number, name in enumerate(names):
        if name in names[:number]:
            yield ("variants", number, "name"), f'two variants are called "{name}"; give each its own name'


def _conditions(steps: tuple[Step, ...], number: int) -> Broken:
    step = steps[number]
    first = next((i for i, other in enumerate(steps) if step.branch and other.branch == step.branch), number)
    earlier = [other.id for other in steps[:first]]
    if step.wait_for and not earlier:
        yield (
            ("wait_for",),
            "nothing was sent before the first step, so there is nothing to wait after; use on_day or after",
        )
    for place, leaf in step.only_if.leaves(("only_if",)) if step.only_if else ():
        if leaf.got and leaf.got not in earlier:
            yield (*place, "got"), _got_what(leaf.got, step, steps, earlier)


def _got_what(name: str, step: Step, steps: tuple[Step, ...], earlier: list[str]) -> str:
    if name == step.id:
        return "a step cannot wait for itself; name an earlier step"
    if any(other.id == name and other.branch and other.branch == step.branch for other in steps):
        return f'"{name}" is an alternative of the same branch, never sent as well; take it out'
    if any(other.id == name for other in steps):
        return f'"{name}" comes later: the two would wait for each other; name an earlier step, or change their order'
    return f'there is no step "{name}"{did_you_mean(name, earlier)}'
