"""What a campaign file names must exist: templates, segments, features, occasions, windows. Told at the line that names it."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path

from postlude import rendering, yamlfile
from postlude.audience import FEATURES
from postlude.calendar import Calendar, load_calendar
from postlude.campaign import Campaign, Step
from postlude.conditions import ABOUT_AN_ORDER, EVENT, FACTS, Condition, operator_faults
from postlude.errors import Fault, InputError
from postlude.event_kinds import EVENTS
from postlude.rendering import short
from postlude.settings import settings
from postlude.yamlfile import did_you_mean

Place = tuple[str | int, ...]


def faults_of(path: Path, campaign: Campaign, *, remember: bool = False) -> list[Fault]:
    """Everything the campaign names that is not there, and every fault of its templates; empty when it can run.

    remember: templates found clean before are not rendered for everybody awkward again until a file they are made of changes;
    for runs, which ask this at every step.
    """
    file = yamlfile.shown(path)
    found = [
        Fault(file, yamlfile.line_of(path, place), yamlfile.key_of(place), what)
        for place, what in (*_segments(campaign), *_conditions(campaign), *_calendar(campaign), *_templates(campaign))
    ]
    names = set(rendering.names())
    for template in dict.fromkeys(template for step in campaign.steps for template in step.templates):
        if template in names and "email" in _channels_of(campaign, template):
            found += _unless_clean(template) if remember else rendering.check(template)
        for channel in _channels_of(campaign, template):
            if channel != "email":
                found += short.check(template, channel)
    found += [
        Fault(file, yamlfile.line_of(path, place), yamlfile.key_of(place), what)
        for place, what in (*_promoting(campaign, names), *_untold(campaign, names))
    ]
    return list(dict.fromkeys(found))


def _unless_clean(template: str) -> list[Fault]:
    clean = settings().home / "clean-templates" / rendering.fingerprint(template)
    if clean.exists():
        return []
    found = rendering.check(template)
    if not found:
        with suppress(OSError):  # then it is looked at again
            clean.parent.mkdir(parents=True, exist_ok=True)
            clean.touch()
    return found


def _promoting(campaign: Campaign, names: set[str]) -> Iterator[tuple[Place, str]]:
    """Letters of a transactional campaign that promote, and do not say so."""
    for number, step in enumerate(campaign.steps):
        if campaign.kind != "transactional" or step.promotes or "email" not in campaign.offers(step):
            continue
        for template in step.templates:
            if template not in names:
                continue
            try:
                held = rendering.promotions(template)
            except InputError:
                continue  # a broken template or theme is told by itself
            if held:
                key = "template" if step.template else "variants"
                yield (
                    ("steps", number, key),
                    (
                        f"{template} holds {' and '.join(held)}, which makes an order mail advertising; take it out of the "
                        'template, or write "promotes: true" and keep an alternative for who did not agree to marketing'
                    ),
                )


def _untold(campaign: Campaign, names: set[str]) -> Iterator[tuple[Place, str]]:
    """What letters say of an event that events of this kind never tell."""
    told = EVENTS.get(campaign.trigger.external or "")
    if told is None:
        return
    for number, step in enumerate(campaign.steps):
        for template in step.templates if "email" in campaign.offers(step) else ():
            try:
                used = rendering.used_names(template) if template in names else set()
            except InputError:
                continue  # a broken template or theme is told by itself
            for name in sorted(used):
                key = name.removeprefix(EVENT)
                if name.startswith(EVENT) and key not in (*told, "kind", "on", "get"):
                    what = f'{template} says {name}, which "{campaign.trigger.external}" does not tell{did_you_mean(key, told)}'
                    yield ("steps", number, "template" if step.template else "variants"), what


def _channels_of(campaign: Campaign, template: str) -> list[str]:
    """The channels that carry this template."""
    steps = [step for step in campaign.steps if template in step.templates]
    return list(dict.fromkeys(channel for step in steps for channel in campaign.offers(step)))


def calendar_faults(path: Path, calendar: Calendar, campaigns: Collection[str]) -> list[Fault]:
    """Campaigns the calendar names that are not there: a pause of a misspelt campaign would hold nothing."""
    named: list[tuple[Place, str]] = [(("windows", name), name) for name in calendar.windows]
    named += [(("pauses", i, "campaign"), pause.campaign) for i, pause in enumerate(calendar.pauses)]
    for i, cap in enumerate(calendar.pressure.caps if calendar.pressure else ()):
        named += [(("pressure", "caps", i, "campaigns", k), name) for k, name in enumerate(cap.campaigns or ())]
    file = yamlfile.shown(path)
    return [
        Fault(
            file,
            yamlfile.line_of(path, place),
            yamlfile.key_of(place),
            f'there is no campaign "{name}"{did_you_mean(name, campaigns)}; write the id of a file in include/campaigns',
        )
        for place, name in named
        if name not in campaigns and not (name == "all" and place[0] == "pauses")
    ]


def _templates(campaign: Campaign) -> Iterator[tuple[Place, str]]:
    names = rendering.names()
    for number, step in enumerate(campaign.steps):
        places: list[tuple[Place, str]] = [(("template",), step.template)] if step.template else []
        places += [(("variants", i, "template"), variant.template) for i, variant in enumerate(step.variants)]
        for place, template in places:
            for channel in campaign.offers(step):
                if channel != "email" and short.file_of(template, channel) is None:
                    what = f"there are no words for {channel}; add include/templates/{template}.{channel}.j2"
                    yield ("steps", number, *place), what
            if "email" in campaign.offers(step) and template not in names:
                what = f'there is no template "{template}"{did_you_mean(template, names)}; add include/templates/{template}.mjml.j2'
                yield ("steps", number, *place), what


def _segments(campaign: Campaign) -> Iterator[tuple[Place, str]]:
    known = sorted(path.stem for path in (settings().include / "segments").glob("[!.]*.y*ml"))
    trigger = campaign.trigger
    named: list[tuple[Place, str | None]] = [(("trigger", key), getattr(trigger, key)) for key in ("enters", "leaves")]
    for key in ("within", "exclude"):
        named += [(("audience", key, i), name) for i, name in enumerate(getattr(campaign.audience, key))]
    for place, leaf in _leaves(campaign):
        named.append(((*place, "in_segment"), leaf.in_segment))
    for at, segment in named:
        if segment is not None and segment not in known:
            yield (
                at,
                f'there is no segment "{segment}"{did_you_mean(segment, known)}; or add include/segments/{segment}.yml',
            )


def _conditions(campaign: Campaign) -> Iterator[tuple[Place, str]]:
    kinds = {name: feature.kind for name, feature in FEATURES.items()} | {
        name: kind for name, (kind, _) in FACTS.items()
    }
    for place, leaf in _leaves(campaign):
        at = (*place, "feature")
        if leaf.feature is None:
            continue
        if leaf.feature.startswith(EVENT):
            if campaign.trigger.external is None:
                yield (
                    at,
                    f"{leaf.feature} is what an outside event told, and this trigger is none: it would never be known",
                )
            told, key = EVENTS.get(campaign.trigger.external or ""), leaf.feature.removeprefix(EVENT)
            if told is not None and key not in told:
                yield at, f'"{campaign.trigger.external}" tells no {leaf.feature}{did_you_mean(key, told)}'
            continue
        if leaf.feature not in kinds:
            yield at, f'there is no feature "{leaf.feature}"{did_you_mean(leaf.feature, kinds)}'
            continue
        if not (campaign.trigger.event or campaign.trigger.external) and leaf.feature in ABOUT_AN_ORDER:
            yield at, f"{leaf.feature} is about an order, and this trigger has no order: it would never be known"
        if leaf.feature == "return_state" and campaign.trigger.once_per != "state":
            yield at, 'return_state goes with a trigger by "event: return_moved": else it would never be known'
        for what in operator_faults(leaf, kinds[leaf.feature]):
            yield at, what
        feature = FEATURES.get(leaf.feature)
        given = [v for v in (leaf.is_, leaf.is_not, *(leaf.in_ or ())) if v is not None]
        for value in given if feature and feature.choices else ():
            if feature and value not in feature.choices:
                yield at, f'{leaf.feature} is one of {", ".join(feature.choices)}, never "{value}"'


def _leaves(campaign: Campaign) -> Iterator[tuple[Place, Condition]]:
    """Every simple condition of the file, with its place."""
    if campaign.audience.only_if:
        yield from campaign.audience.only_if.leaves(("audience", "only_if"))
    for number, step in enumerate(campaign.steps):
        if step.only_if:
            yield from step.only_if.leaves(("steps", number, "only_if"))


def _calendar(campaign: Campaign) -> Iterator[tuple[Place, str]]:
    try:
        calendar = load_calendar(settings().include / "calendar.yml")
    except InputError:
        return  # told by itself; a broken calendar is not this campaign's fault
    occasion = campaign.trigger.occasion
    if occasion and not calendar.dates_of(occasion):
        known = {entry.id for entry in calendar.occasions}
        what = f'the calendar has no occasion "{occasion}"{did_you_mean(occasion, known)}; add it to occasions in include/calendar.yml'
        yield ("trigger", "occasion"), what
    for number, step in enumerate(campaign.steps):
        if told := _outside(campaign, step, calendar):
            yield ("steps", number, "at"), told
        if told := _closed(campaign, step, calendar):
            yield ("steps", number, "id"), told


def _closed(campaign: Campaign, step: Step, calendar: Calendar) -> str | None:
    """A window that a channel's legal hours leave nothing of: nothing would ever be sent."""
    for channel in campaign.offers(step) if campaign.kind == "marketing" else ():
        window = calendar.window_on(channel, campaign.id)
        if window.opens >= window.closes:
            return f"the send window of this campaign lies outside the legal hours of {channel}; move it in include/calendar.yml"
    return None


def _outside(campaign: Campaign, step: Step, calendar: Calendar) -> str | None:
    window = calendar.office if step.office_hours else calendar.window_of(campaign.id)
    if step.office_hours and step.at and not window.opens <= step.at < window.closes:
        return f"{step.at:%H:%M} lies outside the office hours, {window.opens:%H:%M} to {window.closes:%H:%M}; choose a time inside"
    if campaign.kind == "transactional" or step.at is None or window.opens <= step.at < window.closes:
        return None
    return (
        f"{step.at:%H:%M} lies outside the send window of this campaign, {window.opens:%H:%M} to {window.closes:%H:%M}: it would "
        "go another day; choose a time inside, or give the campaign a window in include/calendar.yml"
    )
