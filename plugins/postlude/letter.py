"""From a claimed row to a message: the campaign as it was when the passage began, links, coupon, what the law wants, a signature."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date, datetime
from functools import lru_cache
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from sqlalchemy import Row

from postlude import dkim, legal, letter_extras, rendering, tokens
from postlude.campaign import Coupon
from postlude.errors import InputError
from postlude.message import Address, Message, envelope
from postlude.rendering import short
from postlude.settings import settings


class Desk:
    """What all letters of one batch have in common: the files people edit are looked at once for it. Safe for many threads."""

    def __init__(self) -> None:
        self._templates: dict[tuple[str, str], rendering.Compiled] = {}
        self._rules: dict[tuple[str, str], tuple[legal.Rule, legal.Wanted]] = {}
        self._asked: dict[str, frozenset[str]] = {}
        self._law: legal.Law | None = None
        self._theme: rendering.Theme | None = None
        self.extras: Mapping[UUID, Mapping[str, Any]] = {}  # by message, for templates that ask for them

    @property
    def theme(self) -> rendering.Theme:
        if self._theme is None:
            theme = rendering.load_theme()
            sender = theme.sender
            self._sender = Address(sender.address, sender.name)
            self._reply_to = Address(sender.reply_to, sender.name)
            self._domain = sender.address.rpartition("@")[2]
            self._theme = theme
        return self._theme

    def write(self, letter: Row[Any], now: datetime) -> tuple[Message, str | None]:
        """The message of one claimed row, and its coupon code if it has one.

        Raises rendering.RenderError when it cannot be rendered for this person, InputError when the template is at fault.
        """
        theme = self.theme
        definition = definition_of(letter)
        step = next((s for s in definition["steps"] if s["id"] == letter.step_id), None)
        if step is None:
            raise rendering.RenderError("the campaign no longer has this step")
        coupon = _coupon(step, letter, now)
        links = Links(letter, theme)
        marketing = letter.kind == "marketing"
        if letter.channel == "email":
            template = self._template(letter.template, letter.locale)
            content = template.fill(_context(letter, definition, links, coupon, template.uses, self._extras(letter)))
        else:
            context = _context(letter, definition, links, coupon, _ALL, self._extras(letter))
            words = short.render(letter.template, letter.channel, context, letter.locale, theme, marketing=marketing)
            content = rendering.Content(words.title or definition["name"], "", "", words.text)
        if marketing:
            content = self.lawful(content, letter)
        name = " ".join(f"{letter.first_name} {letter.last_name}".split())
        bounces = settings().bounce_domain
        message = Message(
            message_id=letter.message_id,
            campaign_id=letter.campaign_id,
            kind=letter.kind,
            sender=self._sender,
            reply_to=self._reply_to,
            recipient=Address(_recipient(letter), name if letter.channel in ("email", "sms") else ""),
            channel=letter.channel,
            phone=letter.phone if letter.channel == "sms" else None,
            person=letter.person,
            link=theme.shop.url,
            expires_at=letter.expires_at,
            subject=content.subject,
            text=content.text,
            html=content.html,
            date=now,
            return_path=tokens.bounce_address(letter.message_id, bounces) if bounces else None,
            list_unsubscribe=links["unsubscribe"] if marketing else None,
            list_id=f"{letter.campaign_id.replace('_', '-')}.{self._domain}" if marketing else None,
            feedback_id=f"{letter.campaign_id}:{letter.kind}:{letter.source_id}:postlude" if marketing else None,
        )
        return message, coupon["code"] if coupon else None

    def signed(self, message: Message, raw: bytes) -> bytes:
        """The bytes with a DKIM signature of the sender's domain, where there is a key for it."""
        config = settings()
        if config.dkim_key is None or message.channel != "email":
            return raw
        domain = envelope(message.sender.address).rpartition("@")[2]
        return dkim.signed(raw, domain, config.dkim_selector, dkim.kept_key(config.dkim_key), message.date)

    def lawful(self, content: rendering.Content, letter: Row[Any]) -> rendering.Content:
        """The content with the label of the recipient's country. Raises RenderError where a mail does not say who writes."""
        key = letter.country, letter.locale
        if key not in self._rules:
            self._law = self._law or legal.load_law()
            found = self._law.rule(*key)
            self._rules[key] = found, legal.wanted(found, self.theme.shop)
        rule, wanted = self._rules[key]
        if letter.channel == "sms":
            return content._replace(text=legal.labelled(rule, content.text))
        if letter.channel != "email":
            return content
        if lacking := list(legal.missing(wanted, content.text, content.html)):
            raise rendering.RenderError(f"{rule.law} asks for {', '.join(lacking)} in the mail")
        return content._replace(subject=legal.labelled(rule, content.subject)) if rule.label else content

    def reads_items(self, template: str) -> bool:
        """Does the template, in any language, ask for the items of the order? They cost as much as all else that is known."""
        try:
            return any(_needs(found.uses)[2] for found in rendering.in_all_languages(template, self.theme))
        except InputError:
            return True  # somebody will be told at the first letter

    def asked_of(self, letter: Row[Any]) -> frozenset[str]:
        """Which of the dearer variables (letter_extras) this letter asks for, in any language."""
        if letter.channel != "email":
            return frozenset(letter_extras.NOTHING)
        if letter.template not in self._asked:
            try:
                found = rendering.in_all_languages(letter.template, self.theme)
                roots = {path.partition(".")[0].removesuffix("[]") for one in found for path in one.uses}
            except InputError:
                roots = set()  # somebody will be told at the first letter
            self._asked[letter.template] = frozenset(roots & letter_extras.NOTHING.keys())
        return self._asked[letter.template]

    def _extras(self, letter: Row[Any]) -> Mapping[str, Any]:
        return self.extras.get(letter.message_id, letter_extras.NOTHING)

    def _template(self, name: str, locale: str) -> rendering.Compiled:
        known = self._templates.get((name, locale))
        if known is None:
            known = self._templates[name, locale] = rendering.compiled(name, locale, self.theme)
        return known


class Links(dict[str, Any]):
    """The links of a message, each signed when it is asked for: a signature costs, and few mails have all of them."""

    def __init__(self, letter: Row[Any], theme: rendering.Theme) -> None:
        self._letter, self._key, self._theme = letter, str(letter.message_id), theme

    def __missing__(self, name: str) -> Any:
        if name == "unsubscribe":
            link: Any = tokens.unsubscribe_link(self._key)
        elif name == "preferences":
            link = tokens.preferences_link(self._key, self._letter.due_at.date())
        elif name == "score":
            link = tokens.score_links(self._key)
        elif name == "shop":
            link = self._theme.shop.url
        else:
            raise KeyError(name)
        self[name] = link
        return link


_definitions: dict[tuple[str, str], dict[str, Any]] = {}


def definition_of(letter: Row[Any]) -> dict[str, Any]:
    """A campaign as it was when the passage began; shared, so nobody writes into it. The first letter of a batch brings it."""
    key = letter.campaign_id, letter.version
    if letter.definition:
        if len(_definitions) > 200:
            _definitions.clear()
        _definitions[key] = json.loads(letter.definition)
    return _definitions[key]


_ALL = frozenset(rendering.CONTEXT)


@lru_cache(maxsize=256)
def _needs(uses: frozenset[str]) -> tuple[tuple[str, ...], bool, bool]:
    """Of these paths (rendering.CONTEXT) the links, and whether there is anything of the order or the items."""
    roots = {path.partition(".")[0].removesuffix("[]") for path in uses}
    links = ("unsubscribe", "preferences", "score", "shop")
    named = {path.split(".")[1] for path in uses if path.startswith("links.")}
    return (
        tuple(n for n in links if n in named or "links" in uses),
        "order" in roots,
        not roots.isdisjoint({"item", "items"}),
    )


def _context(
    letter: Row[Any],
    definition: dict[str, Any],
    links: Links,
    coupon: dict[str, Any] | None,
    uses: frozenset[str],
    extras: Mapping[str, Any],
) -> dict[str, Any]:
    """The variables of a template (rendering.CONTEXT), as far as it uses them, as rendering.plain makes them."""
    line = rendering.line
    linked, with_order, with_items = _needs(uses)
    context: dict[str, Any] = {
        "customer": {
            "first_name": line(letter.first_name),
            "locale": line(letter.locale),
            "country": line(letter.country),
        },
        "coupon": coupon and {**coupon, "code": line(coupon["code"])},
        "referral": {"code": line(letter.referral_code)} if letter.referral_code else None,
        "links": {name: links[name] for name in linked},
        "campaign": {"id": letter.campaign_id, "name": line(definition["name"])},
        "step": {"id": letter.step_id},
        "why": line(definition["why"]),
        **(rendering.plain(dict(extras)) if extras is not letter_extras.NOTHING else {}),
    }
    if with_order:
        context["order"] = None
        if letter.order_number:
            context["order"] = {
                "number": line(letter.order_number),
                "placed_on": _local(letter.placed_at, letter.zone),
                "delivered_on": _local(letter.delivered_at, letter.zone),
            }
    if with_items:
        if letter.items is None:
            raise InputError(f"the template {letter.template} was changed while its mails were written")
        context["items"] = items = rendering.plain(json.loads(letter.items))
        context["item"] = items[0] if items else None
    return context


def _local(at: datetime | None, zone: str) -> date | None:
    return at.astimezone(ZoneInfo(zone)).date() if at else None


def _recipient(letter: Row[Any]) -> str:
    """The mail address; for other channels one that stands for the person in the catcher and leads nowhere."""
    if letter.channel == "email":
        return letter.email or ""
    return (
        f"{(letter.phone or '').lstrip('+') if letter.channel == 'sms' else letter.person.hex}@{letter.channel}.invalid"
    )


def _coupon(step: dict[str, Any], letter: Row[Any], now: datetime) -> dict[str, Any] | None:
    if not step.get("coupon"):
        return None
    coupon = Coupon.model_validate(step["coupon"])
    # an imported code was reserved; once intended, any code stays with its message; a made one that was taken already is made
    # anew by the next attempt
    code = letter.coupon_code or tokens.coupon_code(coupon.pool, letter.message_id, letter.attempt - 1)
    until = min(filter(None, (now + coupon.valid, letter.coupon_valid_until)))
    return {"code": code, "percent": coupon.percent, "expires_on": _local(until, letter.zone)}
