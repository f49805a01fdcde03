"""`postlude preview` and `postlude test-send`: a mail to look at, and one to one's own address, without leaving a trace."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from postlude import db, mail_preview, pipeline, rendering
from postlude.errors import InputError
from world import World


@pytest.fixture
def world(engine: Any, monkeypatch: pytest.MonkeyPatch) -> World:
    made = World(engine)
    monkeypatch.setattr(db, "default_engine", lambda: engine)
    return made


def test_a_preview_shows_every_step_in_every_language_with_links_between(tmp_path: Path) -> None:
    pages = mail_preview.write_pages("win_back", "", False, "", "", tmp_path)
    assert len(pages) == 4 * 3
    first = pages[0].read_text()
    assert first.count('srcdoc="') == 2
    (asked, *_) = mail_preview.write_pages("feedback_30d", "", False, "en", "", tmp_path)
    assert "data:image/svg+xml" in asked.read_text(), "pictures of the sample are drawn; nothing is asked of a network"
    assert all(page.name in first for page in pages)
    assert "지민님, 오랜만이에요" in "".join(page.read_text() for page in pages)


def test_an_awkward_preview_shows_people_with_gaps_and_strange_names(tmp_path: Path) -> None:
    pages = mail_preview.write_pages("feedback_30d", "", True, "ko", "ask", tmp_path)
    assert {page.stem.split("-ko-", 1)[1] for page in pages} == {who.replace(" ", "-") for who in rendering.samples()}
    hostile = next(page for page in pages if page.stem.endswith("markup")).read_text()
    assert "<img src=x" not in hostile
    assert "<script" not in hostile


def test_a_preview_for_a_customer_reads_their_order_and_leaves_no_trace(world: World, tmp_path: Path) -> None:
    ana = world.customer("Ana")
    world.order(ana, "2026-05-01", delivered="2026-05-04")
    counts = "select (select count(*) from enrolments) + (select count(*) from messages) + (select count(*) from campaign_versions)"
    before = world.one(counts)
    (page,) = mail_preview.write_pages("feedback_30d", str(ana), False, "en", "", tmp_path)
    shown = page.read_text()
    assert "Hi Ana," in shown
    assert "since May 4" in shown
    assert "https://mail.shop.example/u/sample" in shown, "nobody unsubscribes a customer by trying a link"
    assert world.one(counts) == before
    (third,) = mail_preview.write_pages("win_back", str(ana), False, "en", "coupon", tmp_path)
    assert mail_preview.CODE in third.read_text()


def test_a_test_mail_is_marked_goes_to_one_address_and_is_not_counted(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "routes", lambda: {"email": ("smtp", "smtp://127.0.0.1:1")})
    monkeypatch.setattr(mail_preview.channels, "channel", lambda name: world.post)
    sent = mail_preview.send_test("win_back", "me@customers.example", "", "ko", "coupon")
    ((message, raw),) = world.post.taken
    assert sent["sent"] == ["win_back/coupon ko"]
    assert message.recipient.address == "me@customers.example"
    assert message.subject == "[Test] 다시 오시면 15% 할인해 드려요"
    assert b"To: me@customers.example" in raw
    assert world.one("select count(*) from messages") == 0


@pytest.mark.parametrize(
    ("campaign", "step", "words"),
    [
        ("win_bak", "", 'there is no campaign "win_bak"; did you mean "win_back"'),
        ("win_back", "cupon", 'has no step "cupon"; did you mean "coupon"'),
        ("win_back/cupon", "", 'there is no template "win_back/cupon"; did you mean "win_back/coupon"'),
    ],
)
def test_what_is_not_there_is_named_with_the_nearest_that_is(
    campaign: str, step: str, words: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=words):
        mail_preview.write_pages(campaign, "", False, "", step, tmp_path)


def test_a_customer_nobody_knows_is_told_so(world: World, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no customer has this id"):
        mail_preview.write_pages("win_back", "nobody@customers.example", False, "", "", tmp_path)
