"""The mails of a campaign before anybody gets them: as pages for the browser, and as a test to one address.

For a customer the letter is read as at hand-over, from a passage that is rolled back. Links are those of the sample, so that nobody
unsubscribes or answers for a customer by trying one; codes are made up, so that no coupon is used.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple
from uuid import uuid4

from postlude import channels, db, pipeline, preview, rendering, trial, why, yamlfile
from postlude.campaign import Campaign, Step, load_campaign
from postlude.errors import InputError
from postlude.letter import Desk
from postlude.message import Address, Message, to_bytes
from postlude.rendering import words
from postlude.settings import settings

CODE = "TEST-ONLY"


class Shown(NamedTuple):
    """One mail and for whom it was written."""

    name: str
    campaign: str
    kind: str
    content: rendering.Content
    theme: rendering.Theme


def write_pages(
    campaign: str, customer: str, awkward: bool, locale: str, step: str, folder: Path | None = None
) -> list[Path]:
    """Pages of all mails of a campaign (or of one template), each with links to the others; the paths, first to look at first.

    Raises InputError when the campaign, step or customer is not there, or a mail cannot be rendered.
    """
    folder = folder or settings().home / "preview"
    folder.mkdir(parents=True, exist_ok=True)
    mails = list(_mails(campaign, customer, awkward, locale, step))
    names = {mail.name: f"{mail.name.replace('/', '-').replace(' ', '-')}.html" for mail in mails}
    for mail in mails:
        sender = f"{mail.theme.sender.name} <{mail.theme.sender.address}>"
        page = preview.page(mail.name, mail.content, sender, names)
        (folder / names[mail.name]).write_text(page, encoding="utf-8")
    return [folder / names[mail.name] for mail in mails]


def send_test(campaign: str, to: str, customer: str, locale: str, step: str) -> dict[str, Any]:
    """Every mail of a campaign to one address, the subject marked. No row in `messages`, no coupon used, counts for no cap.

    Goes where mail goes: into the catcher, or out when sending is switched on. Raises InputError as `write_pages` does, and
    when the relay refuses.
    """
    module, url = pipeline.routes()["email"]
    sent = []
    with channels.channel(module).connect(url) as send:
        for mail in _mails(campaign, customer, False, locale or "en", step):
            message = _test(mail, to)
            outcome = send(message, Desk().signed(message, to_bytes(message)), lambda: None)
            if outcome.kind != "accepted":
                raise InputError(f"{mail.name}: not accepted: {outcome.reply or outcome.kind}")
            sent.append(mail.name)
    return {"sent": sent, "to": "the address" if settings().sending else "the catcher"}


def _test(mail: Shown, to: str) -> Message:
    theme = mail.theme
    return Message(
        message_id=uuid4(),
        campaign_id=mail.campaign,
        kind="marketing" if mail.kind == "marketing" else "transactional",
        sender=Address(theme.sender.address, theme.sender.name),
        reply_to=Address(theme.sender.reply_to, theme.sender.name),
        recipient=Address(to),
        subject=f"[Test] {mail.content.subject}",
        text=mail.content.text,
        html=mail.content.html,
        date=datetime.now(UTC),
        list_unsubscribe=rendering.samples()["ana"]["links"]["unsubscribe"] if mail.kind == "marketing" else None,
    )


def _mails(campaign: str, customer: str, awkward: bool, locale: str, step: str) -> Iterator[Shown]:
    spec = None if "/" in campaign else _campaign(campaign)
    parts = _parts(spec, step) if spec else [(None, campaign)]
    if customer:
        if spec is None:
            raise InputError("--customer needs a campaign, not a template: it says which order the mail is about")
        yield from _for_customer(spec, [(part, name) for part, name in parts if part], customer, locale)
        return
    theme = rendering.load_theme()
    for part, template in parts:
        base = settings().include / "templates" / template
        languages = [locale] if locale else sorted({words.DEFAULT_LANGUAGE, *words.languages(base)})
        for language in languages:
            for who in rendering.samples(template) if awkward else ("ana",):
                context = preview.person(template, language, who)
                if spec and part:
                    context |= spec.variables(part)
                name = f"{template} {language}" + (f" {who}" if awkward else "")
                yield _rendered(name, spec, template, context, language, theme)


def _for_customer(spec: Campaign, parts: list[tuple[Step, str]], customer: str, locale: str) -> Iterator[Shown]:
    now = datetime.now(UTC)
    with db.default_engine().connect() as conn:  # never committed
        person = why.people(conn, customer)[0]
        for part, template in parts:
            with trial.letter_of(conn, spec, part, template, person.customer_id, "email", now) as (letter, desk):
                language = locale or letter.locale
                name = f"{template} {language} customer"
                try:
                    content = desk.preview(letter, now, language, CODE)
                except rendering.RenderError as error:
                    raise InputError(f"{name}: cannot be rendered: {error.reason}") from None
                yield Shown(name, spec.id, spec.kind, content, desk.house(letter.source_id).theme)


def _rendered(
    name: str, spec: Campaign | None, template: str, context: dict[str, Any], language: str, theme: rendering.Theme
) -> Shown:
    try:
        content = rendering.render(template, context, language, theme)
    except rendering.RenderError as error:
        raise InputError(f"{name}: cannot be rendered: {error.reason}") from None
    return Shown(name, spec.id if spec else "test", spec.kind if spec else "marketing", content, theme)


def _campaign(name: str) -> Campaign:
    folder = settings().include / "campaigns"
    path = Path(name) if name.endswith((".yml", ".yaml")) else folder / f"{name}.yml"
    if not path.is_file():
        known = [found.stem for found in folder.glob("[!.]*.yml")]
        raise InputError(f'there is no campaign "{name[:60]}"{yamlfile.did_you_mean(name, known)}')
    return load_campaign(path)


def _parts(spec: Campaign, step: str) -> list[tuple[Step | None, str]]:
    steps = [found for found in spec.steps if not step or found.id == step]
    if not steps:
        known = yamlfile.did_you_mean(step, [found.id for found in spec.steps])
        raise InputError(f'the campaign {spec.id} has no step "{step[:60]}"{known}')
    parts = [(found, name) for found in steps if "email" in spec.offers(found) for name in found.templates]
    if not parts:
        raise InputError(f"the campaign {spec.id} sends no mail; other channels are short texts without a layout")
    return list(parts)
