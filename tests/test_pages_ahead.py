"""What the pages foresee is what the time machine shows: the calendar's look ahead and the wizard, with the real one."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine
from sqlalchemy.engine import URL

from paged import Pages
from postlude import db, simulate
from postlude.settings import settings
from test_pages_wizard import SPRING
from test_simulate import FIRST, everything, shop
from world import INCLUDE, World, at, campaign

pytestmark = [pytest.mark.airflow, pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.fixture
def little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Include with three campaigns: the whole library over 45 days is a matter of minutes."""
    folder = tmp_path / "include"
    (folder / "campaigns").mkdir(parents=True)
    for there in INCLUDE.iterdir():
        if there.name != "campaigns":
            (folder / there.name).symlink_to(there)
    for name in ("feedback_30d", "loyalty_join", "win_back"):
        (folder / "campaigns" / f"{name}.yml").symlink_to(INCLUDE / "campaigns" / f"{name}.yml")
    monkeypatch.setenv("POSTLUDE_INCLUDE", str(folder))
    settings.cache_clear()
    yield folder
    monkeypatch.undo()
    settings.cache_clear()


@pytest.fixture
def world(engine: Engine, little: Path) -> World:
    made = World(engine)
    shop(made)
    made.plan(campaign("feedback_30d"), "2026-05-31 05:00")
    return made


def worked_out(pages: Pages, started: dict[str, Any], path: str) -> dict[str, Any]:
    assert pages.status == 200, started
    end = time.monotonic() + 500
    while not (told := pages.post("kim", path, {"job": started["job"]})).get("done"):
        assert pages.status == 200 and time.monotonic() < end, told
        time.sleep(0.5)
    return dict(told)


def test_what_is_shown_before_saving_is_what_the_calendar_foresees_afterwards(world: World, tmp_path: Path) -> None:
    pages = Pages(world, tmp_path / "home", FIRST)
    june = "api/calendar?first=2026-06-01&last=2026-07-16"

    def foreseen() -> int:
        worked_out(pages, pages.post("kim", "api/calendar/forecast", {}), "api/calendar/checked")
        return sum(count.get("forecast", 0) for day in pages.get("viewer", june)["days"] for count in day["counts"])

    before = foreseen()
    move = {"do": "move", "campaign": "feedback_30d", "step": "ask", "on_day": 37, "in_flight": "migrate"}
    closed = {"do": "pause", "campaign": "win_back", "from": "2026-06-04", "until": "2026-06-12"}
    mine = {"edits": [move, closed], "why": "sale", "base": pages.get("kim", june)["base"]}
    started = pages.post("kim", "api/calendar/check", mine)
    words = worked_out(pages, started, "api/calendar/checked")["words"]
    figures = json.loads((tmp_path / "home" / "jobs" / started["job"] / "out.json").read_text())["figures"]
    assert f"{figures['sent']['after']} messages are sent" in words[0] and f"instead of {before}" in words[0], words
    assert any("from day 30 to day 37 (feedback_30d/ask)" in line for line in words)
    assert any("win_back/" in line and "lose" in line for line in words), words
    assert world.do("select 1 from calendar_revisions where kind <> 'file'") == []  # nothing was saved by looking
    assert pages.post("kim", "api/calendar/save", mine | {"job": started["job"]})["revision"]
    assert foreseen() == figures["sent"]["after"] != before


def test_a_drafted_campaign_does_on_the_copy_what_it_would_do_once_its_file_is_there(
    world: World, database: URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = Pages(world, tmp_path / "home", FIRST)
    before = everything(database)
    told = worked_out(pages, pages.post("kim", "api/wizard/simulate", SPRING), "api/wizard/simulated")
    sent = {row["step"] for row in told["days"] if row["campaign"] == "spring_back" and row["sent"]}
    assert sent == {"miss_you", "coupon", "last_word"}, told["days"]  # without the step that was left out
    assert everything(database) == before  # the shop never notices
    # the same file among those that run
    (tmp_path / "include" / "campaigns" / "spring_back.yml").write_text(
        pages.post("kim", "api/wizard/draft", SPRING)["yaml"]
    )
    world.engine.dispose()
    real = simulate.run(database, simulate.Wanted(at(FIRST))).summary
    assert json.loads(db.dumps(real["days"])) == told["days"]
