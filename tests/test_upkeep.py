"""Upkeep removes what has done its work, and nothing that explains a message or that the next run looks at."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import Engine

from postlude import db, pipeline
from world import World, at

NOW = at("2026-03-02 03:30")


def ago(days: float) -> str:
    return str(NOW - timedelta(days=days))


@pytest.fixture
def world(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(db, "default_engine", lambda: engine)
    return World(engine)


def test_upkeep_removes_what_has_done_its_work_and_keeps_what_is_looked_at(world: World) -> None:
    for number, ended in enumerate((8, 6, -3)):
        world.do(
            "insert into banners values (cast(:id as uuid), cast(:id as uuid), 'win_back', 'Hello', 'Hello', null, :ended, :ended)",
            id=f"00000000-0000-0000-0000-00000000000{number}", ended=ago(ended),
        )  # fmt: skip
    for token, seen in (("old", 1.1), ("new", 0.9)):
        world.do("insert into webhook_tokens values ('mailgun', :token, 'x', :seen)", token=token, seen=ago(seen))
    for key, taken in (("read long ago", ago(91)), ("read", ago(89)), ("waits", None)):
        world.do("insert into event_inbox (received_at, source, dedupe_key, payload, taken_at) values (:got, 'email', :key, '{}', :taken)",
                 got=ago(200), key=key, taken=taken)  # fmt: skip
    for row, released in (("corrected", ago(91)), ("just corrected", ago(1)), ("open", None)):
        world.do("insert into quarantine (source_id, entity, row_hash, reasons, raw, first_seen, last_seen, run_id, released_at) "
                 "values ('shop', 'orders', :row, '{late}', '{}', :seen, :seen, 'r', :released)",
                 row=row, seen=ago(300), released=released)  # fmt: skip
    runs = (
        ("enrolled once, long ago", "enrol", "done", "manual", 900), ("failed later", "enrol", "failed", "manual", 800),
        ("backfilled", "enrol", "done", "backfill", 700), ("sent long ago", "deliver", "done", "manual", 500),
        ("sent", "deliver", "done", "manual", 1),
    )  # fmt: skip
    for run, stage, outcome, origin, days in runs:
        as_of = ago(days + 400 if origin == "backfill" else days)
        world.do("insert into runs (run_id, stage, subject, as_of, origin, started_at, finished_at, outcome) "
                 "values (:run, :stage, '', :as_of, :origin, :at, :at, :outcome)",
                 run=run, stage=stage, outcome=outcome, origin=origin, at=ago(days), as_of=as_of)  # fmt: skip
    for success, days in ((True, 900), (True, 800), (False, 700), (False, 600), (False, 1)):
        world.do("insert into gate_results (gate, run_id, as_of, checked_at, success, suite_hash, evaluated) "
                 "values ('orders', 'r', :at, :at, :success, 'x', 12)", at=ago(days), success=success)  # fmt: skip
    for day in ("2024-01-01", "2026-03-01"):
        world.do(
            "insert into quota_use (channel, provider, day) values ('email', 'gmail', cast(:day as date))", day=day
        )

    removed = pipeline.maintain(NOW, "upkeep", "test")
    assert {key: count for key, count in removed.items() if key.endswith("_pruned")} == {
        "banners_pruned": 1, "tokens_pruned": 1, "reports_pruned": 1, "corrected_rows_pruned": 1, "quota_days_pruned": 1,
        "runs_pruned": 3, "verdicts_pruned": 3,
    }  # fmt: skip
    left = "select {} from {} order by 1"
    assert [row[0] for row in world.do(left.format("run_id", "runs where stage in ('enrol', 'deliver')"))] == [
        "enrolled once, long ago", "sent",
    ]  # fmt: skip
    assert [row[0] for row in world.do(left.format("dedupe_key", "event_inbox"))] == ["read", "waits"]
    assert [row[0] for row in world.do(left.format("row_hash", "quarantine"))] == ["just corrected", "open"]
    verdicts = world.do("select success, checked_at from gate_results order by 2")
    assert [(row.success, (NOW - row.checked_at).days) for row in verdicts] == [(True, 800), (False, 1)]
    again = pipeline.maintain(NOW, "upkeep once more", "test")
    assert not any(count for key, count in again.items() if key.endswith("_pruned"))
