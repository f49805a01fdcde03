"""From a claimed row to a message: the campaign as it was when the passage began, links, coupon, what the law wants, a signature."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from functools import lru_cache
from typing import Any, NamedTuple
from urllib.parse import quote

from sqlalchemy import Row

from postlude import claims, dkim, legal, letter_facts, rendering, tokens
from postlude.campaign import Coupon
from postlude.errors import InputError
from postlude.message import Address, Message, envelope
from postlude.rendering import short
from postlude.settings import settings


class House(NamedTuple):
    """What the mails of one shop have in common."""

    theme: rendering.Theme
    sender: Address
    reply_to: Address
    domain: str


class Form(NamedTuple):
    """What the letters of one step of a campaign to customers of one shop have in common."""

    definition: dict[str, Any]
    step: dict[str, Any] | None
    house: House
    marketing: bool  # written like marketing: a letter of a transactional campaign may promote too
    list_id: str | None
    feedback_id: str | None
    about: dict[str, Any]  # variables


class Desk:
    """What all letters of one batch have in common: the files people edit are looked at once for it. Safe for many threads."""

    def __init__(self) -> None:
        self._templates: dict[tuple[str, str, str], rendering.Compiled] = {}
        self._rules: dict[tuple[str, str, str], tuple[legal.Rule, legal.Wanted]] = {}
        self._houses: dict[str, House] = {}
        self._law: legal.Law | None = None
        self._forms: dict[tuple[str, str, str, str, str], Form] = {}
        self.goods: claims.Catalogue = {}  # what the catalogue says now of what events told
        self.read = frozenset(letter_facts.PARTS)  # what the rows of its letters hold
        self.extras: dict[Any, dict[str, Any]] = {}  # message -> what only some letters need

    def house(self, shop: str) -> House:
        """How mails of this shop (a source) look, and who they come from."""
        if shop not in self._houses:
            theme = rendering.load_theme(shop=shop)
            sender = theme.sender
            self._houses[shop] = House(
                theme,
                Address(sender.address, sender.name),
                Address(sender.reply_to, sender.name),
                sender.address.rpartition("@")[2],
            )
        return self._houses[shop]

    def write(self, letter: Row[Any], now: datetime) -> tuple[Message, str | None]:
        """The message of one claimed row, and its coupon code if it has one.

        Raises rendering.RenderError when it cannot be rendered for this person, InputError when the template is at fault.
        """
        form = self._form(letter)
        house, step, marketing = form.house, form.step, form.marketing
        if step is None:
            raise rendering.RenderError("the campaign no longer has this step")
        coupon = _coupon(step, letter, now) if step.get("coupon") else None
        links = Links(letter, house.theme)
        channel = letter.channel
        if channel == "email":
            template = self._template(letter.template, letter.locale, letter.source_id)
            context = self._context(letter, form, links, coupon, now, template.uses)
            if self.goods:
                context = claims.fresh(context, self.goods, letter.source_id, template.uses)
            content = template.fill(context)
        else:
            context = self._context(letter, form, links, coupon, now, _ALL)
            words = short.render(letter.template, channel, context, letter.locale, house.theme, marketing=marketing)
            content = rendering.Content(words.title or form.definition["name"], "", "", words.text)
        if marketing:
            content = self.lawful(content, letter)
        name = " ".join(f"{letter.first_name} {letter.last_name}".split())
        bounces = settings().bounce_domain
        message = Message(
            message_id=letter.message_id,
            campaign_id=letter.campaign_id,
            kind=letter.kind,
            sender=house.sender,
            reply_to=house.reply_to,
            recipient=Address(_recipient(letter), name if channel in ("email", "sms") else ""),
            channel=channel,
            phone=letter.phone if channel == "sms" else None,
            person=letter.person,
            link=house.theme.shop.url,
            expires_at=letter.expires_at,
            subject=content.subject,
            text=content.text,
            html=content.html,
            date=now,
            return_path=tokens.bounce_address(letter.message_id, bounces) if bounces else None,
            list_unsubscribe=links["unsubscribe"] if marketing else None,
            list_id=form.list_id,
            feedback_id=form.feedback_id,
        )
        return message, coupon["code"] if coupon else None

    def _form(self, letter: Row[Any]) -> Form:
        key = letter.campaign_id, letter.version, letter.step_id, letter.kind, letter.source_id
        form = self._forms.get(key)
        if form is None or letter.definition:
            campaign, _, step_id, kind, shop = key
            house, definition = self.house(shop), definition_of(letter)
            step = next((s for s in definition["steps"] if s["id"] == step_id), None)
            marketing = kind == "marketing" or bool(step and step.get("promotes"))
            form = self._forms[key] = Form(
                definition,
                step,
                house,
                marketing,
                f"{campaign.replace('_', '-')}.{house.domain}" if marketing else None,
                f"{campaign}:{kind}:{shop}:postlude" if marketing else None,
                {
                    "campaign": {"id": campaign, "name": rendering.line(definition["name"]), "marketing": marketing},
                    "step": {"id": step_id},
                    "why": rendering.line(definition["why"]),
                },
            )
        return form

    def preview(self, letter: Row[Any], now: datetime, locale: str, code: str) -> rendering.Content:
        """The mail as `write` would make it, in this language, with links that lead nowhere and a code that is no coupon.

        Raises as `write` does.
        """
        form = self._form(letter)
        assert form.step
        coupon = _coupon(form.step, letter, now) if form.step.get("coupon") else None
        links = Links(letter, form.house.theme)
        links.update(rendering.samples()["ana"]["links"])
        template = self._template(letter.template, locale, letter.source_id)
        coupon = coupon and {**coupon, "code": code}
        return template.fill(self._context(letter, form, links, coupon, now, template.uses))

    def _context(self, letter: Row[Any], *about: Any) -> dict[str, Any]:
        """The variables of one letter, with what was looked up for the batch."""
        if not _needs(about[-1])[3] <= self.read:
            raise InputError(f"the template {letter.template} was changed while its mails were written")
        context = _context(letter, *about)
        if self.extras:
            context |= self.extras.get(letter.message_id, {})
        return context

    def signed(self, message: Message, raw: bytes) -> bytes:
        """The bytes with a DKIM signature of the sender's domain, where there is a key for it."""
        config = settings()
        if config.dkim_key is None or message.channel != "email":
            return raw
        domain = envelope(message.sender.address).rpartition("@")[2]
        return dkim.signed(raw, domain, config.dkim_selector, dkim.kept_key(config.dkim_key), message.date)

    def lawful(self, content: rendering.Content, letter: Row[Any]) -> rendering.Content:
        """The content with the label of the recipient's country. Raises RenderError where a mail does not say who writes."""
        key = letter.country, letter.locale, letter.source_id
        if key not in self._rules:
            self._law = self._law or legal.load_law()
            found = self._law.rule(letter.country, letter.locale)
            self._rules[key] = found, legal.wanted(found, self.house(letter.source_id).theme.shop)
        rule, wanted = self._rules[key]
        if letter.channel == "sms":
            return content._replace(text=legal.labelled(rule, content.text))
        if letter.channel != "email":
            return content
        if lacking := legal.missing(wanted, content.text, content.html):
            raise rendering.RenderError(f"{rule.law} asks for {', '.join(lacking)} in the mail")
        return content._replace(subject=legal.labelled(rule, content.subject)) if rule.label else content

    def speaks_of(self, template: str, channel: str = "email") -> frozenset[str]:
        """The variables that the template uses in any language, as rendering.Compiled.uses; all of them where it is no mail."""
        if channel != "email":
            return _ALL
        try:
            found = rendering.in_all_languages(template, rendering.load_theme())
            return frozenset(path for ready in found for path in ready.uses)
        except InputError:
            return _ALL  # somebody will be told at the first letter

    def _template(self, name: str, locale: str, shop: str) -> rendering.Compiled:
        known = self._templates.get((name, locale, shop))
        if known is None:
            known = self._templates[name, locale, shop] = rendering.compiled(name, locale, self.house(shop).theme)
        return known


_ASKED = {"score": "item", "delivery": "delivery", "nps": "shop"}  # links and what they ask about


class Links(dict[str, Any]):
    """The links of a message, each signed when it is asked for: a signature costs, and few mails have all of them."""

    def __init__(self, letter: Row[Any], theme: rendering.Theme) -> None:
        self._letter, self._key, self.shop = letter, letter.key, theme.shop

    def __missing__(self, name: str) -> Any:
        if name == "unsubscribe":
            link: Any = tokens.unsubscribe_link(self._key)
        elif name == "preferences":
            link = tokens.preferences_link(self._key, self._letter.due_at.date())
        elif name in _ASKED:
            link = tokens.score_links(self._key, _ASKED[name])
        elif name == "shop":
            link = self.shop.url
        elif name == "page":
            link = self.shop.account_url or None
        elif name == "booking":
            link = self.shop.booking_url or None
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
_LINKS = ("unsubscribe", "preferences", *_ASKED, "shop", "page", "booking")


@lru_cache(maxsize=256)
def _needs(uses: frozenset[str]) -> tuple[tuple[str, ...], frozenset[str], tuple[str, ...], frozenset[str]]:
    """Of these paths (rendering.CONTEXT) the links, what there is of the order or event and which parts of the order (none: all),
    and what has to be read for it."""
    roots = {path.partition(".")[0].removesuffix("[]") for path in uses}
    named = {path.split(".")[1] for path in uses if path.startswith("links.")}
    order = {path.partition(".")[2] for path in uses if path.partition(".")[0] == "order"} - {"?"}
    whole = "order" in uses or not order <= letter_facts.OF_ORDER
    return (
        tuple(n for n in _LINKS if n in named or "links" in uses),
        letter_facts.NAMES & roots,
        () if whole else tuple(sorted(order | {"number"})),
        letter_facts.parts(uses),
    )


def _context(
    letter: Row[Any],
    form: Form,
    links: Links,
    coupon: dict[str, Any] | None,
    now: datetime,
    uses: frozenset[str],
) -> dict[str, Any]:
    """The variables of a template (rendering.CONTEXT), as far as it uses them, as rendering.plain makes them."""
    line = rendering.line
    linked, wanted, of_order, _ = _needs(uses)
    context: dict[str, Any] = {
        "customer": {
            "first_name": line(letter.first_name),
            "locale": line(letter.locale),
            "country": line(letter.country),
        },
        "today": letter_facts.local_day(now, letter.zone),
        "coupon": coupon and {**coupon, "code": line(coupon["code"])},
        "referral": _referral(letter.referral_code, links.shop) if letter.referral_code else None,
        "links": {name: links[name] for name in linked},
        **form.about,
    }
    if wanted:
        context |= letter_facts.facts(letter, form.definition, wanted, of_order)
        if links.shop.free_shipping:
            context["free_shipping"] = _free_shipping(context, links.shop)
    return context


def _referral(code: str, shop: Any) -> dict[str, Any]:
    url = shop.referral_url
    return {"code": rendering.line(code), "url": url.replace("{code}", quote(code, safe="")) if url else None}


def _free_shipping(context: Mapping[str, Any], shop: Any) -> dict[str, Any] | None:
    """How little the basket, or the product the mail is about, lacks for free shipping; None where nothing is known or lacking."""
    cart, product = context.get("cart"), context.get("product")
    amount, currency = (cart["amount"], cart["currency"]) if cart else (None, None)
    if not cart and product:
        amount, currency = product["price"], product["currency"]
    threshold = shop.free_shipping.get(currency)
    if threshold is None or amount is None or (missing := threshold - Decimal(str(amount))) <= 0:
        return None
    return {"missing": missing, "threshold": threshold, "currency": currency}


def _recipient(letter: Row[Any]) -> str:
    """The mail address; for other channels one that stands for the person in the catcher and leads nowhere."""
    if letter.channel == "email":
        return letter.email or ""
    return (
        f"{(letter.phone or '').lstrip('+') if letter.channel == 'sms' else letter.person.hex}@{letter.channel}.invalid"
    )


def _coupon(step: dict[str, Any], letter: Row[Any], now: datetime) -> dict[str, Any]:
    coupon = Coupon.model_validate(step["coupon"])
    # an imported code was reserved; once intended, any code stays with its message; a made one that was taken already is made
    # anew by the next attempt
    code = letter.coupon_code or tokens.coupon_code(coupon.pool, letter.message_id, letter.attempt - 1)
    until = min(filter(None, (now + coupon.valid, letter.coupon_valid_until)))
    return {"code": code, "percent": coupon.percent, "expires_on": letter_facts.local_day(until, letter.zone)}
