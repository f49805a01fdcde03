"""The wizard: a new campaign out of one of the library, as a file that loads and a patch that applies; nothing goes live."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy import Engine

from paged import EVIL, Pages
from postlude.campaign import Campaign, load_campaign
from postlude.pages import jobs, known
from postlude.settings import settings
from world import World

pytestmark = pytest.mark.airflow

SPRING: dict[str, Any] = {
    "pattern": "win_back", "id": "spring_back", "name": "Spring: come \"back\"", "owner": "mia", "description": "Für den Frühling.",
    "segment": "at_risk", "holdout": 0.2,
    "steps": [{"id": "miss_you", "on_day": 2}, {"id": "whats_new", "keep": False},
              {"id": "coupon", "on_day": 9}, {"id": "last_word", "on_day": 30}],
}  # fmt: skip


@pytest.fixture
def pages(engine: Engine, tmp_path: Path) -> Iterator[Pages]:
    yield Pages(World(engine), tmp_path, "2026-06-02 12:00")


def test_a_draft_becomes_a_file_that_loads_and_a_patch_that_applies(pages: Pages, tmp_path: Path) -> None:
    before = sorted((settings().include / "campaigns").iterdir())
    told = pages.post("kim", "api/wizard/draft", SPRING)
    assert pages.status == 200 and told["faults"] == [], told["faults"]
    assert "“miss_you” by mail: on day 2" in str(told["words"]) and "enters “at_risk”" in str(told["words"])
    folder = tmp_path / "repo"
    (folder / "include" / "campaigns").mkdir(parents=True)
    (tmp_path / "spring.patch").write_text(told["patch"])
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)
    subprocess.run(["git", "apply", str(tmp_path / "spring.patch")], cwd=folder, check=True)
    path = folder / "include" / "campaigns" / "spring_back.yml"
    assert path.read_text() == told["yaml"]
    found = load_campaign(path)
    assert (found.name, found.trigger.enters, found.audience.holdout) == (SPRING["name"], "at_risk", 0.2)
    assert [(step.id, step.on_day) for step in found.steps] == [("miss_you", 2), ("coupon", 9), ("last_word", 30)]
    assert found.steps[1].coupon and found.exit_on == ("ordered",)
    # nothing is live, and nothing is kept
    assert sorted((settings().include / "campaigns").iterdir()) == before
    assert "spring_back" not in {one.id for one in known.campaigns()}


def test_every_campaign_of_the_library_can_be_a_pattern(pages: Pages) -> None:
    for pattern in pages.get("kim", "api/wizard")["patterns"]:
        steps = [
            {key: step[key] for key in ("id", "on_day", "after", "template") if step[key] is not None}
            for step in pattern["steps"]
        ]
        body = {
            "pattern": pattern["id"],
            "id": "a_new_one",
            "name": "x",
            "owner": "y",
            "holdout": pattern["holdout"],
            "steps": steps,
        }
        told = pages.post("kim", "api/wizard/draft", body)
        assert told["faults"] == [], (pattern["id"], told["faults"])
        made = Campaign.model_validate_json(_json(told["yaml"]))
        was = known.campaign(pattern["id"])
        kept = {"trigger", "goal", "exit_on", "stop_while", "kind", "topic", "channel"}
        assert made.model_dump(include=kept) == was.model_dump(include=kept)


def _json(text: str) -> str:
    import json

    return json.dumps(yaml.safe_load(text))


def test_faults_are_told_and_a_faulty_draft_can_neither_be_looked_at_nor_tried(pages: Pages) -> None:
    wrong: dict[str, dict[str, Any]] = {
        "is no id": {"id": "../../dags/x"},
        'a campaign "win_back" already': {"id": "win_back"},
        "no segment": {"segment": "nobody_knows"},
        "keep at least one": {"steps": [{"id": step["id"], "keep": False} for step in SPRING["steps"]]},
        "template": {"steps": [{"id": "miss_you", "template": "no/such"}]},
    }
    for words, more in wrong.items():
        told = pages.post("kim", "api/wizard/draft", SPRING | more)
        assert pages.status == 200 and any(words in fault for fault in told["faults"]), (words, told["faults"])
        for act in ("simulate", "preview"):
            assert (
                pages.post("kim", f"api/wizard/{act}", SPRING | more | {"step": "miss_you"}) and pages.status == 422
            ), words
    assert 'no campaign "x"' in pages.post("kim", "api/wizard/draft", SPRING | {"pattern": "x"})["detail"]
    for who, status in ((None, 401), ("viewer", 403)):
        for act in ("draft", "preview", "simulate", "simulated"):
            assert (
                pages.post(who, f"api/wizard/{act}", SPRING | {"step": "miss_you", "job": ""})
                and pages.status == status
            )


def test_a_message_of_a_draft_is_looked_at_and_a_script_stays_text(pages: Pages) -> None:
    shown = pages.post("kim", "api/wizard/preview", SPRING | {"name": EVIL, "step": "coupon", "person": "markup"})
    assert pages.status == 200 and shown["html"].startswith("<!doctype html>") and "<script" not in shown["html"]
    assert (
        yaml.safe_load(pages.post("kim", "api/wizard/draft", SPRING | {"name": EVIL[:80]})["yaml"])["name"] == EVIL[:80]
    )


def test_a_draft_is_simulated_beside_the_others_and_nothing_that_runs_sees_it(
    pages: Pages, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Any] = []
    popen = jobs.subprocess.Popen

    def run(command: list[str], **more: Any) -> Any:
        started.append((command, more["env"]))
        return popen([command[0], "-c", "pass"], **more)

    monkeypatch.setattr(jobs.subprocess, "Popen", run)
    assert len(pages.post("kim", "api/wizard/simulate", SPRING)["job"]) == 32
    command, env = started[0]
    folder = Path(env["POSTLUDE_INCLUDE"])
    assert command[3:8] == [
        "simulate",
        "--from",
        "2026-06-02T12:00:00+00:00",
        "--days",
        "45",
    ] and folder.is_relative_to(tmp_path)
    names = {path.stem for path in (folder / "campaigns").glob("*.yml")}
    assert names == {path.stem for path in (settings().include / "campaigns").glob("*.yml")} | {"spring_back"}
    assert load_campaign(folder / "campaigns" / "spring_back.yml").name == SPRING["name"]
    assert (folder / "sql").is_symlink() and (folder / "calendar.yml").is_file()
