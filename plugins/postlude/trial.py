"""A message before anybody gets it: as a real customer or an invented one would, in each language; and a test send to the catcher.

A real customer's is written by the hand-over itself, from rows that are taken back at once, so it is what would be sent.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

from sqlalchemy import Connection

from postlude import db, letter_extras, letter_facts, preview, rendering
from postlude.campaign import Campaign, Step
from postlude.channels import channel
from postlude.errors import InputError, Unavailable
from postlude.letter import Desk
from postlude.message import Address, Message, message_id, to_bytes, uuid_of
from postlude.rendering import short


def step_of(campaign: Campaign, step_id: str, variant: str = "") -> tuple[Step, str]:
    """The step and the template of its variant. Raises InputError when there is none."""
    step = next((one for one in campaign.steps if one.id == step_id), None)
    if step is None:
        raise InputError(f'{campaign.id} has no step "{step_id}"')
    if not step.variants:
        return step, str(step.template)
    chosen = next((one for one in step.variants if one.name == variant), step.variants[0])
    return step, chosen.template


def as_invented(
    campaign: Campaign, step_id: str, variant: str, person: str, locale: str, channel_name: str, now: datetime
) -> Message:
    """The message as one of the invented people of `rendering.samples` would get it, awkward ones included.

    Raises InputError for an unknown person or step, rendering.TemplateFault, rendering.RenderError.
    """
    step, template = step_of(campaign, step_id, variant)
    known = rendering.samples(template)
    if person not in known:
        raise InputError(f'there is no invented person "{person}"; there are {", ".join(known)}')
    context = preview.person(template, locale, person)
    context |= campaign.variables(step)
    if step.coupon and context.get("coupon"):
        context["coupon"] = context["coupon"] | {"percent": step.coupon.percent}
    theme = rendering.load_theme()
    if channel_name == "email":
        content = rendering.render(template, context, locale, theme)
    else:
        words = short.render(template, channel_name, context, locale, theme, marketing=campaign.kind == "marketing")
        content = rendering.Content(words.title or campaign.name, "", "", words.text)
    return Message(
        message_id=message_id(uuid_of("trial", campaign.id, person), step.id), campaign_id=campaign.id, kind=campaign.kind,
        sender=Address(theme.sender.address, theme.sender.name), recipient=Address("ana@customers.example"),
        subject=content.subject, text=content.text, html=content.html, date=now, channel=channel_name,
        list_unsubscribe=context["links"]["unsubscribe"] if campaign.kind == "marketing" else None,
    )  # fmt: skip


def as_customer(
    conn: Connection,
    campaign: Campaign,
    step_id: str,
    variant: str,
    customer: int,
    locale: str,
    channel_name: str,
    now: datetime,
) -> Message:
    """The message as this customer would get it now, about the newest order; nothing of it stays in the database.

    locale: instead of the customer's own, when it is not empty. Raises InputError when there is no such customer or step,
    rendering.TemplateFault, rendering.RenderError.
    """
    step, template = step_of(campaign, step_id, variant)
    with letter_of(conn, campaign, step, template, customer, channel_name, now) as (letter, desk):
        if locale:
            letter.locale = locale
        return desk.write(letter, now)[0]


@contextmanager
def letter_of(
    conn: Connection, campaign: Campaign, step: Step, template: str, customer: int, channel_name: str, now: datetime
) -> Iterator[tuple[Any, Desk]]:
    """A letter as the hand-over reads it, of a passage of this customer that begins now, and the desk that can write it.

    Both are good inside of the `with`; after it nothing of them is in the database. Raises InputError when there is no such
    customer, or none a message could go to.
    """
    version = f"trial {campaign.version}"
    with conn.begin_nested() as trial:
        try:
            definition = db.dumps(campaign.definition())
            db.run(conn, "74_trial_version", campaign=campaign.id, version=version, definition=definition, now=now)
            made = db.run(
                conn, "74_trial_message", campaign=campaign.id, version=version, customer=customer, step=step.id,
                template=template, kind=campaign.kind, channel=channel_name, now=now, expires_at=now + step.expires_after,
                about_order=campaign.trigger.event is not None,
            ).scalar()  # fmt: skip
            if made is None:
                raise InputError(f"there is no customer {customer}")
            db.run(conn, "74_trial_referral", customer=customer, now=now)
            row = db.run(conn, "43_letters", ids=[made], facts=letter_facts.PARTS, now=now).one_or_none()
            if row is None:
                raise InputError("this customer has no address a mail could go to")
            letter: Any = SimpleNamespace(**row._mapping)
            desk = Desk()
            more = letter_extras.of(conn, [letter], {template: desk.speaks_of(template, channel_name)}, now)
            desk.extras[made] = rendering.plain(more.get(made, {}))
            yield letter, desk
        finally:
            trial.rollback()


def send(message: Message, who: str, url: str, module: str, now: datetime) -> str:
    """Hand the message to the mail catcher at `url`, marked as a test, to an address that leads nowhere. Returns that address.

    Raises Unavailable when the catcher does not take it.
    """
    name = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in who)[:40] or "somebody"
    to = Address(f"test-of-{name}@catcher.invalid")
    test = replace(message, message_id=uuid4(), recipient=to, subject=f"[Test] {message.subject}", date=now)
    with channel(module).connect(url) as hand_over:
        outcome = hand_over(test, to_bytes(test), lambda: None)
    if outcome.kind != "accepted":
        raise Unavailable(f"the mail catcher did not take the test: {outcome.reply or outcome.kind}")
    return to.address
