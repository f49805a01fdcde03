"""A campaign in plain sentences, made from its file: for people who do not read YAML."""

from __future__ import annotations

from postlude.campaign import Campaign, Step
from postlude.timing import in_words

ENDS = {
    "ordered": "the customer orders",
    "reviewed": "the customer reviews the order",
    "returned": "something of the order is sent back",
    "cancelled": "the order is cancelled",
    "left_segment": "the customer leaves the segment",
    "clicked": "the customer clicks",
    "rated_low": "the customer gives a bad mark",
    "over": "what began it is over",
    "shipped": "the order is handed to the carrier",
    "delivered": "the order has arrived",
    "ticket_opened": "the customer asks customer service",
    "rated": "the customer gives a mark",
    "superseded": "something newer of the same kind has begun",
}
OPEN = {"return_open": "a return is open", "ticket_open": "a question to customer service is open",
        "recovery_open": "a bad experience is being made good"}  # fmt: skip
CHANNELS = {
    "email": "mail",
    "sms": "text message",
    "webhook": "message to your own system",
    "banner": "banner on the shop’s pages",
}
PER = {
    "order": "once for each order",
    "episode": "every time anew",
    "customer": "once in a lifetime",
    "parcel": "once for each parcel",
    "state": "once for each of them",
}


def words_of(campaign: Campaign) -> list[tuple[str, list[str]]]:
    """[(heading, sentences)]: what it is, who gets it, what they get, when it ends, what holds it back."""
    parts = [
        ("What it is", _what(campaign)),
        ("Who gets it", _who(campaign)),
        ("What they get", [_step(campaign, step) for step in campaign.steps]),
        ("When it ends", _ends(campaign)),
        ("What holds it back", _limits(campaign)),
    ]
    return [(heading, sentences) for heading, sentences in parts if sentences]


def _what(campaign: Campaign) -> list[str]:
    kind = (
        "It is marketing: only people who agreed to it get it, and the caps count it."
        if campaign.kind == "marketing"
        else "It is about an order or a service: it needs no consent to marketing and no cap holds it back."
    )
    if campaign.kind == "marketing" and campaign.topic != "marketing":
        kind = kind.replace("agreed to it", f"agreed to “{campaign.topic}”")
    return [*([campaign.description] if campaign.description else []), kind, f"Ask {campaign.owner} about it."]


def _who(campaign: Campaign) -> list[str]:
    trigger, audience = campaign.trigger, campaign.audience
    found = [
        f"It starts when {trigger.in_words()}, {PER[trigger.once_per]}. What is older than {in_words(trigger.max_age)} starts nothing."
    ]
    if trigger.entry == "from_now_on":
        found.append("What happened before the campaign first ran does not count.")
    if audience.within:
        found.append(f"Only members of {_listed(audience.within, 'or')} take part.")
    if audience.exclude:
        found.append(f"Members of {_listed(audience.exclude, 'or')} do not take part.")
    if audience.only_if:
        found.append(f"Only those take part for whom {audience.only_if.in_words()} when it would begin.")
    if campaign.needs:
        found.append(f"It is off until a shop delivers {_or([name.replace('_', ' ') for name in campaign.needs])}.")
    if audience.holdout:
        found.append(
            f"{audience.holdout:.0%} of the customers, drawn by lot, are left alone, to measure what it changes."
        )
    return found


def _step(campaign: Campaign, step: Step) -> str:
    if step.after is not None:
        when = "at once" if not step.after else f"{in_words(step.after)} later"
    elif step.on_day is not None:
        when = "on the same day" if step.on_day == 0 else f"on day {step.on_day}"
        when += f" at {step.at:%H:%M}" if step.at else ", when the send window opens"
    else:
        when = "as soon as that has happened"
    said = f"“{step.id}” by {' or '.join(CHANNELS[name] for name in campaign.offers(step))}: {when}"
    if step.days_by_category:
        days = sorted(step.days_by_category.items(), key=lambda item: item[1])
        said += f" (by category {days[0][1]} to {days[-1][1]} days: {', '.join(f'{name} {n}' for name, n in days[:6])}"
        said += f" and {len(days) - 6} more)" if len(days) > 6 else ")"
    if step.wait_for:
        otherwise = "it is left out" if step.wait_for.otherwise == "skip" else "it goes all the same"
        said += f"; it waits until the customer has {step.wait_for.event}, at most {in_words(step.wait_for.timeout)}, then {otherwise}"
    if step.only_if:
        said += f"; only if {step.only_if.in_words()}"
    if step.branch:
        said += f"; of the steps of “{step.branch}” only the first that fits"
    if step.variants:
        total = sum(variant.weight for variant in step.variants)
        said += "; in variants: " + ", ".join(f"{v.name} for {v.weight / total:.0%}" for v in step.variants)
    if step.office_hours:
        said += "; in office hours"
    if step.promotes:
        said += "; it also promotes, so only people who agreed to marketing get it"
    if step.coupon:
        said += f"; with a code of their own for {step.coupon.percent} % off, good for {in_words(step.coupon.valid)}"
    return f"{said}. Never later than {in_words(step.expires_after)} after that."


def _ends(campaign: Campaign) -> list[str]:
    goal = [f"Its goal is reached when {ENDS[campaign.goal]}: nothing more is sent."] if campaign.goal else []
    others = [ENDS[rule] for rule in campaign.exit_on if rule != campaign.goal]
    if others:
        goal.append(f"It also ends when {_or(others)}.")
    return [*goal, "Else it ends after its last step. Who leaves, complains or bounces gets nothing more."]


def _limits(campaign: Campaign) -> list[str]:
    found = []
    if campaign.stop_while:
        found.append(f"Nothing is sent while {_or([OPEN[rule] for rule in campaign.stop_while])}.")
    if campaign.at_most_every:
        found.append(f"The same customer gets at most one of its messages in {in_words(campaign.at_most_every)}.")
    if campaign.reentry == "never":
        found.append("Who has been through it once never gets it again.")
    elif campaign.reentry != "once_per_anchor":
        found.append(f"The same customer may start again after {campaign.reentry.after}, not before.")
    if campaign.feeds:
        feeds = _or(campaign.feeds)
        found.append(
            f"It rests on what has not happened: while news of {feeds} of a shop is missing, its customers wait."
        )
    if campaign.approval.above:
        found.append(f"A run of more than {campaign.approval.above:,} messages waits for an approval.")
    if campaign.approval.first_run:
        found.append("Its first run waits for an approval.")
    if campaign.approval.by:
        found.append(f"Only {_or(campaign.approval.by)} may approve.")
    if campaign.kind == "marketing":
        found.append(
            f"Where several campaigns want the same customer, it has rank {campaign.priority} of 9; 1 goes first."
        )
    return found


def _listed(names: tuple[str, ...], glue: str) -> str:
    return f" {glue} ".join(f"“{name}”" for name in names)


def _or(parts: list[str] | tuple[str, ...]) -> str:
    return " or ".join(filter(None, (", ".join(parts[:-1]), parts[-1])))
