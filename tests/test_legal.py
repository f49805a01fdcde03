"""What the law of the recipient's country asks of marketing is in the mail, or the mail is not sent."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from sqlalchemy import Engine

from postlude import legal, rendering
from postlude.errors import InputError
from postlude.letter import Desk
from postlude.rendering import RenderError, load_theme
from postlude.settings import settings
from world import World, campaign


@pytest.mark.parametrize("country", ["KR", "JP", "US", "CA", "DE", "GB", "", "BR"])
def test_every_shipped_template_says_who_writes_wherever_it_goes(country: str) -> None:
    rule = legal.load_law().rule(country, "en")
    for name in rendering.names():
        for person, context in rendering.samples(name).items():
            if person != "long":
                mail = rendering.render(name, context)
                assert not list(legal.missing(legal.wanted(rule, load_theme().shop), mail.text, mail.html)), (
                    name,
                    person,
                )


@pytest.mark.parametrize(
    ("country", "locale", "labelled"),
    [("KR", "ko", True), ("KR", "en", True), ("kr ", "en", True), ("", "ko", True), ("", "en", False), ("DE", "ko", False),
     ("BR", "ko", False)],
)  # fmt: skip
def test_advertising_to_korea_begins_with_its_label(country: str, locale: str, labelled: bool) -> None:
    rule = legal.load_law().rule(country, locale)
    subject = legal.labelled(rule, "We miss you")
    assert subject == ("(광고) We miss you" if labelled else "We miss you")
    assert legal.labelled(rule, subject) == subject, "once"


def test_an_unknown_country_gets_what_any_country_asks_for() -> None:
    law = legal.load_law()
    everything = {need for rule in law.countries.values() for need in rule.needs}
    assert set(law.rule("", "en").needs) == set(law.rule("BR", "pt").needs) == everything


def test_the_label_is_in_the_mail_that_leaves_and_only_in_marketing(engine: Engine) -> None:
    world = World(engine)
    win_back = campaign("win_back")
    seoul, bristol = world.customer("Minji"), world.customer("Ana")
    world.do("update customers set country = case customer_id when :k then 'KR' else 'GB' end", k=seoul)
    for customer in (seoul, bristol):
        world.order(customer, "2025-09-02")
    world.plan(win_back, "2026-03-02 10:00")
    world.deliver(win_back, now="2026-03-02 10:00")
    subjects = {m.recipient.name: m.subject for m, _ in world.post.taken}
    assert subjects["Minji"].startswith("(광고) ") and "광고" not in subjects["Ana"]


def test_what_the_theme_lacks_is_told_at_the_row_that_asks_for_it(tmp_path: Path) -> None:
    shop = load_theme().shop.model_dump() | {"phone": ""}
    told = [str(fault) for fault in legal.faults(shop)]
    assert len(told) == 1
    assert "legal.yml" in told[0] and "shop.phone" in told[0] and "KR" in told[0]
    rule = legal.load_law().rule("KR", "ko")
    assert list(legal.missing(legal.wanted(rule, SimpleNamespace(**shop)), "text", "html"))
    path = tmp_path / "legal.yml"
    path.write_text(
        (settings().include / "legal.yml").read_text().replace("reviewed_on: 2026-11-25", "reviewed_on: soon", 1)
    )
    with pytest.raises(InputError, match=r"legal.yml:\d+: countries.*reviewed_on"):
        legal.load_law(path)


def test_a_mail_that_does_not_say_who_writes_is_not_sent() -> None:
    content = rendering.Content("We miss you", "", "<p>Hello</p>", "Hello")
    letter = SimpleNamespace(country="CA", locale="en", channel="email", source_id="shop")
    with pytest.raises(RenderError, match="Anti-Spam"):
        Desk().lawful(content, letter)  # type: ignore[arg-type]
