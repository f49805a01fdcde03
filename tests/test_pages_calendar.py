"""The campaign calendar: what it shows equals the tables; a change is drafted, looked at, saved once, and taken back."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from paged import EVIL, Pages
from postlude import db, tallies
from postlude.pages import jobs
from test_flow import lapsing
from world import World, at, campaign

pytestmark = pytest.mark.airflow
JUNE = "api/calendar?first=2026-06-01&last=2026-06-30"
CARD = {
    "do": "card",
    "id": "midsummer",
    "name": "x",
    "date": "2026-06-20",
    "segment": "lapsed",
    "template": "win_back/miss_you",
}
PAUSE = {"do": "pause", "campaign": "win_back", "from": "2026-06-10", "until": "2026-06-12"}


@pytest.fixture
def world(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    monkeypatch.setattr(db, "default_engine", lambda: engine)
    yield World(engine)


@pytest.fixture
def pages(world: World, tmp_path: Path) -> Pages:
    return Pages(world, tmp_path, "2026-06-02 12:00")


def change(pages: Pages, *edits: dict[str, Any], why: str = "sale", **more: Any) -> dict[str, Any]:
    return {"edits": list(edits), "why": why, "base": pages.get("kim", JUNE)["base"], **more}


def test_days_show_what_went_what_will_go_and_what_closes_them(world: World, pages: Pages) -> None:
    back = campaign("win_back")
    for country in ("DE", "DE", "KR", "KR"):
        world.do("update customers set country = :k where customer_id = :c", k=country, c=lapsing(world))
    world.plan(back, "2026-06-01 08:30")
    world.deliver(back, now="2026-06-01 09:30")
    world.do("update messages set state = 'held', reason = 'awaiting_approval' where message_id = "
             "(select message_id from messages where step_id = 'coupon' limit 1)")  # fmt: skip
    with db.transaction(world.engine) as conn:
        tallies.refresh(conn, at("2026-06-02 11:50"))
    pages.post("kim", "api/calendar/save", change(pages, PAUSE, {"do": "add_blackout", "date": "2026-06-20"}))
    pages.post("kim", "api/calendar/save", change(pages, {"do": "offer", "id": "midsummer", "name": EVIL, "date": "2026-06-21",
                                                          "segment": "lapsed", "template": "win_back/miss_you"}))  # fmt: skip
    assert pages.status == 200
    told = pages.get("viewer", JUNE)
    days = {day["day"]: day for day in told["days"]}
    counts = {(day["day"], c["campaign"], c["step"], kind): c[kind] for day in told["days"] for c in day["counts"]
              for kind in ("sent", "planned", "held") if kind in c}  # fmt: skip
    assert counts == {
        ("2026-06-01", "win_back", "miss_you", "sent"): 4, ("2026-06-07", "win_back", "whats_new", "planned"): 4,
        ("2026-06-14", "win_back", "coupon", "planned"): 3, ("2026-06-14", "win_back", "coupon", "held"): 1,
        ("2026-06-25", "win_back", "last_word", "planned"): 4,
    }  # fmt: skip
    assert days["2026-06-20"]["blackout"] == "sale" and days["2026-06-19"]["blackout"] is None
    assert {(h["country"], h["closed"]) for h in days["2026-06-06"]["holidays"]} == {("KR", False)}  # Memorial Day
    assert [(p["from"], p["until"]) for p in told["pauses"]] == [("2026-06-10", "2026-06-12")]
    assert [(s["name"], s["date"]) for s in told["specials"]] == [(EVIL, "2026-06-21")]
    assert told["window"]["opens"] == "09:00" and told["may_steer"] is False
    for wrong in (
        "first=2026-06-31&last=2026-07-01",
        "first=x&last=y",
        "first=2026-06-02&last=2026-06-01",
        "first=2020-01-01&last=2026-01-01",
    ):
        assert pages.get("viewer", f"api/calendar?{wrong}")["detail"] and pages.status == 422


def test_who_may_only_look_changes_nothing(world: World, pages: Pages) -> None:
    bodies = {
        "draft": change(pages, PAUSE), "check": change(pages, PAUSE), "save": change(pages, PAUSE), "forecast": {}, "feed": {},
        "checked": {"job": "0" * 32}, "revert": {"revision": 1, "why": "x"},
    }  # fmt: skip
    for who, status in ((None, 401), ("viewer", 403)):
        for act, body in bodies.items():
            assert pages.post(who, f"api/calendar/{act}", body) and pages.status == status, act
    assert (
        pages.post("kim", "api/calendar/save", change(pages, PAUSE), **{"sec-fetch-site": "cross-site"})
        and pages.status == 403
    )
    assert (
        pages.post("kim", "api/calendar/save", change(pages, PAUSE), **{"content-type": "text/plain"})
        and pages.status == 415
    )
    assert pages.get("viewer", "api/calendar/history")["revisions"] == []


def test_of_two_editors_the_second_is_told_and_a_form_sent_twice_is_refused(world: World, pages: Pages) -> None:
    mine, yours = change(pages, PAUSE), change(pages, PAUSE | {"until": "2026-06-20"})
    assert pages.post("kim", "api/calendar/save", mine)["revision"] > 0
    again = pages.post("kim", "api/calendar/save", mine)
    assert pages.status == 409 and "Somebody was faster" in again["detail"]
    second = pages.post("lee", "api/calendar/draft", yours)
    assert pages.status == 409 and "win_back is paused from 2026-06-10 to 2026-06-12" in second["detail"]
    assert "the same that you want to change" in second["detail"]
    other = pages.post("lee", "api/calendar/draft", yours | {"edits": [{"do": "add_blackout", "date": "2026-06-24"}]})
    assert pages.status == 409 and "touches nothing of yours" in other["detail"]
    history = pages.get("viewer", "api/calendar/history")["revisions"]
    assert [(one["author"], one["why"]) for one in history if one["kind"] == "edit"] == [
        ("kim", "sale (saved without a look ahead)")
    ]


def test_a_revision_is_taken_back_with_one_click_and_both_stay_in_the_history(world: World, pages: Pages) -> None:
    made = pages.post("kim", "api/calendar/save", change(pages, PAUSE))["revision"]
    told = pages.post("lee", "api/calendar/revert", {"revision": made, "why": "wrong week"})
    assert pages.status == 200 and pages.get("viewer", JUNE)["pauses"] == []
    kinds = {
        one["revision"]: (one["kind"], one["author"], one["reverts"], one["reverted_by"]) for one in told["revisions"]
    }
    assert kinds[told["revision"]][:3] == ("revert", "lee", made) and kinds[made][3] == told["revision"]
    change_of = next(one for one in told["revisions"] if one["revision"] == made)["changes"][0]
    assert change_of["before"] == "" and "2026-06-12" in change_of["after"]
    assert "already" in pages.post("lee", "api/calendar/revert", {"revision": made, "why": "x"})["detail"]


def test_impossible_changes_are_told_in_words_and_store_nothing(world: World, pages: Pages) -> None:
    wrong: dict[str, Any] = {
        "is not a date": {"do": "add_blackout", "date": "2026-02-30"},
        "a blackout day already": {"do": "add_blackout", "date": "2026-12-25"},
        "ends (2026-06-01) before it begins": PAUSE | {"until": "2026-06-01"},
        'no campaign "win_bak"': PAUSE | {"campaign": "win_bak"},
        "must open first": {"do": "window", "opens": "20:00", "closes": "09:00"},
        "there is no edit": {"do": EVIL},
        "no step": {"do": "move", "campaign": "win_back", "step": "nothing", "on_day": 3},
        "is over": {
            "do": "offer",
            "id": "old",
            "name": "x",
            "date": "2026-01-01",
            "segment": "lapsed",
            "template": "win_back/miss_you",
        },
        "ends (2026-06-19) before it is sent (2026-06-20)": CARD | {"until": "2026-06-19"},
        "lies outside the send window": CARD | {"at": "21:00"},
        "unknown key": PAUSE | {"colour": "red"},
        "cannot be stored": PAUSE | {"why": "a\0b"},
    }
    for words, edit in wrong.items():
        told = pages.post("kim", "api/calendar/draft", change(pages, edit))
        assert pages.status == 422 and words in told["detail"], (words, told)
    assert pages.post("kim", "api/calendar/draft", change(pages, PAUSE, why="  "))["detail"] and pages.status == 422
    assert pages.get("kim", "api/calendar/history")["revisions"] == []
    assert pages.post("kim", "api/calendar/draft", change(pages, CARD | {"at": "19:00"})) and pages.status == 200


def test_a_look_ahead_is_shown_before_saving_and_holds_for_that_change_only(
    world: World, pages: Pages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The time machine has tests of its own; here it is a program that answers. What is checked is that nothing else is saved."""
    answers = tmp_path / "answers.py"
    answers.write_text(
        "import json, sys, time\n"
        "words = sys.argv[1:]; edits = json.load(open(words[words.index('--edits') + 1]))\n"
        "time.sleep(0.5)\n"
        "json.dump({'words': ['4 customers move', edits[0]['until']], 'figures': {}}, open(words[words.index('--json') + 1], 'w'))\n"
    )
    popen = jobs.subprocess.Popen
    monkeypatch.setattr(
        jobs.subprocess, "Popen", lambda command, **kw: popen([command[0], str(answers), *command[3:]], **kw)
    )
    mine = change(pages, PAUSE)
    started = pages.post("kim", "api/calendar/check", mine)
    assert started["words"] == ["win_back is paused from 2026-06-10 to 2026-06-12 (sale)"]
    assert "another look ahead" in pages.post("lee", "api/calendar/check", mine)["detail"]  # one at a time
    told = pages.post("kim", "api/calendar/checked", {"job": started["job"]})
    assert told["done"] is False
    assert (
        pages.post("kim", "api/calendar/save", mine | {"job": started["job"]}) and pages.status == 409
    )  # not seen yet
    for _ in range(100):
        told = pages.post("kim", "api/calendar/checked", {"job": started["job"]})
        if told["done"]:
            break
        time.sleep(0.1)
    assert told["words"] == ["4 customers move", "2026-06-12"]
    other = change(pages, PAUSE | {"until": "2026-06-30"}, job=started["job"])
    assert "about another change" in pages.post("kim", "api/calendar/save", other)["detail"] and pages.status == 409
    assert pages.post("kim", "api/calendar/save", mine | {"job": started["job"]})["revision"]
    assert pages.get("kim", "api/calendar/history")["revisions"][0]["why"] == "sale"
    for wrong in ("../../etc", "0" * 32, EVIL[:32]):
        assert "not known any more" in pages.post("kim", "api/calendar/checked", {"job": wrong})["detail"]


def test_a_look_ahead_that_fails_says_so(
    world: World, pages: Pages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    popen = jobs.subprocess.Popen
    fails = ["-c", "raise SystemExit('no room on the disk')"]
    monkeypatch.setattr(jobs.subprocess, "Popen", lambda command, **kw: popen([command[0], *fails], **kw))
    job = pages.post("kim", "api/calendar/forecast", {})["job"]
    for _ in range(100):
        told = pages.post("kim", "api/calendar/checked", {"job": job})
        if pages.status != 200:
            break
        time.sleep(0.1)
    assert pages.status == 422 and "no room on the disk" in told["detail"]


def test_the_newest_forecast_stands_beside_what_is_planned(world: World, pages: Pages, tmp_path: Path) -> None:
    (tmp_path / "jobs").mkdir()
    rows = [{"day": day, "campaign": "win_back", "step": "miss_you", "sent": 7} for day in ("2026-06-01", "2026-06-05")]
    kept = {"from": "2026-06-01T00:00:00+00:00", "until": "2026-07-16", "days": rows, "assumptions": []}
    (tmp_path / "jobs" / "forecast.json").write_text(json.dumps(kept))
    days = {day["day"]: day["counts"] for day in pages.get("viewer", JUNE)["days"]}
    assert days["2026-06-05"] == [{"campaign": "win_back", "step": "miss_you", "forecast": 7}]
    assert days["2026-06-01"] == []  # what is over was sent, or not
