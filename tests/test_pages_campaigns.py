"""The Campaigns page: words, funnel, reasons, and each message as people would get it; nothing of a look stays."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any, get_args

import pytest
from sqlalchemy import Engine

from paged import EVIL, Pages
from postlude import db, rendering, tallies, words
from postlude.campaign import Campaign, ChannelName, ExitRule, StopRule, Trigger
from postlude.pages import known
from postlude.settings import settings
from postlude.words import words_of
from test_flow import lapsing
from world import World, at, campaign

pytestmark = pytest.mark.airflow  # FastAPI comes with it


@pytest.fixture
def world(engine: Engine) -> Iterator[World]:
    yield World(engine)


def test_a_campaign_in_plain_sentences() -> None:
    found = dict(words_of(campaign("win_back")))
    assert found["Who gets it"][0] == (
        "It starts when a customer enters “lapsed”, every time anew. What is older than 3 days starts nothing."
    )
    assert found["What they get"][0] == (
        "“miss_you” by mail: on the same day, when the send window opens. Never later than 3 days after that."
    )
    assert "with a code of their own for 15 % off, good for 2 weeks" in found["What they get"][2]
    assert found["When it ends"][0] == "Its goal is reached when the customer orders: nothing more is sent."
    assert any("rests on what has not happened" in line for line in found["What holds it back"])


def test_every_campaign_of_the_library_can_be_told() -> None:
    """Every word a file may say has words: none is missing from the tables."""
    assert set(get_args(ExitRule)) == set(words.ENDS) and set(get_args(StopRule)) == set(words.OPEN)
    assert set(get_args(ChannelName)) == set(words.CHANNELS)
    assert set(get_args(Trigger.model_fields["once_per"].annotation)) == set(words.PER)
    for one in known.campaigns():
        assert len(words_of(one)) >= 4, one.id
    assert not known.faults()


def test_every_rule_a_file_may_have_is_in_the_words() -> None:
    """Whatever a file changes, the words change too: no rule is silent."""
    base = campaign("win_back").model_dump(mode="json", by_alias=True)
    before = words_of(Campaign.model_validate(base))
    changes: dict[str, Any] = {
        "kind": "transactional", "topic": "news", "priority": 2, "goal": None, "exit_on": ["ordered", "clicked"],
        "stop_while": [], "reentry": {"after": "90 days"}, "at_most_every": "30 days", "needs_fresh_orders": False,
        "approval": {"above": 500, "by": ["mia"]}, "audience": {"within": ["champions"], "exclude": ["new"], "holdout": 0.2},
        "trigger": base["trigger"] | {"entry": "from_now_on"}, "channel": "sms", "owner": "others", "description": "else",
    }  # fmt: skip
    changes["audience"]["only_if"] = {"feature": "frequency", "at_least": 2}
    changes["needs"] = ["shipments"]
    for key, value in changes.items():
        assert words_of(Campaign.model_validate(base | {key: value})) != before, key
    step: dict[str, Any] = {"at": "10:00", "on_day": 3, "only_if": {"feature": "frequency", "at_least": 2}, "branch": "offer",
                            "channels": ["email", "sms"], "coupon": {"pool": "spring", "percent": 10, "valid": "5 days"},
                            "expires_after": "1 days", "wait_for": {"event": "opened", "timeout": "2 days", "else": "skip"}}  # fmt: skip
    for key, value in step.items():
        steps = [base["steps"][0], base["steps"][1] | {key: value}]
        assert words_of(Campaign.model_validate(base | {"steps": steps})) != words_of(
            Campaign.model_validate(base | {"steps": base["steps"][:2]})
        ), key


def test_funnel_next_sends_and_reasons_are_what_the_tables_say(world: World, tmp_path: Path) -> None:
    back = campaign("win_back")
    people = [lapsing(world) for _ in range(3)]
    lapsing(world, consent=False)
    world.plan(back, "2026-06-01 08:30")
    world.deliver(back, now="2026-06-01 09:30")
    world.order(people[0], "2026-06-02 10:00")
    world.plan(back, "2026-06-02 12:00")
    with db.transaction(world.engine) as conn:
        tallies.refresh(conn, at("2026-06-02 12:05"))
    pages = Pages(world, tmp_path, "2026-06-02 12:10")
    told = pages.post("viewer", "api/campaign/story", {"campaign": "win_back"})
    steps = {step["step"]: step for step in told["funnel"]}
    assert [steps["miss_you"][key] for key in ("planned", "sent", "cancelled")] == [3, 3, 0]
    assert [steps["whats_new"][key] for key in ("planned", "scheduled", "cancelled")] == [3, 2, 1]
    assert (told["passages"]["begun"], told["passages"]["under_way"]) == (3, 2)
    assert told["passages"]["ended"] == [{"reason": "goal_met", "count": 1}]
    reasons = {(one["what"], one["reason"]): one for one in told["reasons"]}
    assert reasons["not enrolled", "no_consent"]["count"] == 1
    assert reasons["not enrolled", "no_consent"]["meaning"].startswith("the person has not agreed")
    days = {day["day"]: day for day in told["days"]}
    assert days["2026-06-01"]["sent"] == 3 and days["2026-06-07"]["planned"] == 2
    sample = pages.post("user", "api/campaign/audience", {"campaign": "win_back"})["customers"]
    assert [(one["customer"], one["step"]) for one in sample] == [(person, "whats_new") for person in people[1:]]
    assert pages.post("viewer", "api/campaign/audience", {"campaign": "win_back"}) and pages.status == 403


def test_a_look_shows_what_would_be_sent_and_leaves_nothing_behind(world: World, tmp_path: Path) -> None:
    ana = lapsing(world, name="Ana")
    evil = lapsing(world, name=EVIL)
    tables = ("messages", "enrolments", "campaign_versions", "referral_codes")
    pages = Pages(world, tmp_path, "2026-06-01 09:00")
    look = {"campaign": "win_back", "step": "coupon"}
    shown = pages.post("op", "api/campaign/preview", look | {"customer": ana})
    assert (
        pages.status == 200 and "15" in shown["subject"] + shown["text"] and shown["html"].startswith("<!doctype html>")
    )
    assert [world.one(f"select count(*) from {table}") for table in tables] == [0, 0, 0, 0]
    # it is the very mail that goes out later
    back = campaign("win_back")
    world.plan(back, "2026-06-01 08:30")
    world.deliver(back, now="2026-06-01 09:30")
    first = pages.post("op", "api/campaign/preview", {"campaign": "win_back", "step": "miss_you", "customer": ana})
    sent = next(message for message, _ in world.post.taken if message.message_id in _ids(world, ana))
    assert first["subject"] == sent.subject and _bare(first["html"]) == _bare(sent.html)
    assert "<script" not in pages.post("op", "api/campaign/preview", look | {"customer": evil})["html"]
    # a real person is shown to nobody who may not know people; the invented ones to everybody
    assert pages.post("user", "api/campaign/preview", look | {"customer": ana}) and pages.status == 403
    for person in rendering.samples():
        for locale in ("en", "ko", "xx"):
            told = pages.post("viewer", "api/campaign/preview", look | {"person": person, "locale": locale})
            assert pages.status == 200 and told["subject"] and "<script" not in told["html"], (person, locale, told)
    wrong = {
        "has no step": look | {"step": EVIL},
        "there is no customer": look | {"customer": 10**15},
        "no invented person": look | {"person": EVIL},
        "there is no campaign": look | {"campaign": "../x"},
        "locale": look | {"locale": EVIL},
    }
    for told_words, body in wrong.items():
        told = pages.post("op", "api/campaign/preview", body)
        assert pages.status == 422 and told_words in told["detail"], told
    assert [world.one(f"select count(*) from {table} where run_id = 'trial'") for table in tables[:2]] == [0, 0]


def _ids(world: World, customer: int) -> set[Any]:
    return {row[0] for row in world.do("select message_id from messages where customer_id = :c", c=customer)}


def _bare(html: str) -> str:
    """The mail without its links, which carry the id of the message."""
    return re.sub(r"/(u|p|s)/[\w.~-]+", "", html)


def test_a_test_goes_to_the_catcher_whatever_the_settings_say(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sink import Sink

    with Sink() as sink:
        monkeypatch.setenv("POSTLUDE_CATCHER_URL", f"smtp://127.0.0.1:{sink.port}?starttls=never")
        monkeypatch.setenv("POSTLUDE_SENDING", "true")
        monkeypatch.setenv("POSTLUDE_SMTP_URL", "smtp://relay.invalid:25")
        settings.cache_clear()
        try:
            pages = Pages(world, tmp_path, "2026-06-01 09:00")
            body = {"campaign": "win_back", "step": "miss_you", "person": "ana"}
            told = pages.post("kim", "api/campaign/test", body)
            assert pages.status == 200 and told == {"sent_to": "test-of-kim@catcher.invalid"}
            assert pages.post("viewer", "api/campaign/test", body) and pages.status == 403
        finally:
            monkeypatch.undo()
            settings.cache_clear()
        assert world.one("select count(*) from messages") == 0
        assert [b"[Test]" in entry.raw for entry in sink.ledger] == [True]


def test_the_frame_of_a_mail_runs_our_script_alone_and_fetches_nothing(world: World, tmp_path: Path) -> None:
    """Without an origin no login goes with what it asks for: a script of its own would be refused, and no mail be seen."""
    pages = Pages(world, tmp_path, "2026-06-01 12:00")
    shown = pages.get("viewer", "mail-frame")
    script = shown.partition("<script>")[2].partition("</script>")[0]
    policy = pages.headers["content-security-policy"]
    assert f"script-src 'sha256-{b64encode(sha256(script.encode()).digest()).decode()}';" in policy
    assert "sandbox allow-scripts" in policy and "allow-same-origin" not in policy
    assert "src=" not in shown and "href=" not in shown
