"""The Segments page: what marketers see of a segment, and that its export opens in a spreadsheet without running anything."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Engine

from paged import EVIL, Pages
from test_flow import lapsing
from world import World, campaign

pytestmark = pytest.mark.airflow  # FastAPI comes with it


@pytest.fixture
def world(engine: Engine) -> Iterator[World]:
    yield World(engine)


def test_a_segment_in_words_over_time_and_beside_another(world: World, tmp_path: Path) -> None:
    lapsed = [lapsing(world), lapsing(world, "2026-06-02 07:00")]
    for _ in range(2):  # a good customer of old, who counts as lapsed too
        world.order(lapsed[0], "2025-11-01", amount=400)
    world.order(world.customer(), "2026-05-25")
    for day in ("2026-06-01 08:30", "2026-06-02 08:30", "2026-06-02 20:30"):
        world.plan(campaign("win_back"), day)
    world.order(lapsed[1], "2026-06-02 21:00")
    world.plan(campaign("win_back"), "2026-06-03 08:30")
    pages = Pages(world, tmp_path, "2026-06-03 09:00")

    told = {one["id"]: one for one in pages.get("viewer", "api/segments")["segments"]}
    assert told["lapsed"]["words"] == "the stage is lapsed" and told["lapsed"]["campaigns"] == ["We miss you"]
    assert [told["lapsed"][key] for key in ("customers", "entered", "departed")] == [1, 0, 1]
    days = pages.post("viewer", "api/segment/days", {"segment": "lapsed"})["days"]
    assert [(d["day"], d["customers"], d["entered"], d["departed"]) for d in days] == [
        ("2026-06-01", 1, 1, 0), ("2026-06-02", 2, 1, 0), ("2026-06-03", 1, 0, 1),
    ]  # fmt: skip
    both = pages.post("viewer", "api/segment/overlap", {"one": "lapsed", "other": "loyalty_eligible"})
    assert both == {"one": 1, "other": 1, "both": 1}
    sample = pages.post("user", "api/segment/sample", {"segment": "lapsed"})["customers"]
    assert [(one["customer"], one["stage"], one["orders"]) for one in sample] == [(lapsed[0], "lapsed", 3)]
    # who may only look sees no single customer
    for path in ("sample", "export"):
        assert "you may look" in pages.post("viewer", f"api/segment/{path}", {"segment": "lapsed"})["detail"]
        assert pages.status == 403
    wrong = pages.post("user", "api/segment/overlap", {"one": "lapsed", "other": EVIL})
    assert pages.status == 422 and "DAG segment" in wrong["detail"]


def test_an_export_opens_in_a_spreadsheet_and_runs_nothing(world: World, tmp_path: Path) -> None:
    formulas = ("=1+1", "+1", "-1", "@SUM(A1)", " =cmd|'/c calc'!A1", "\t=1", EVIL, 'a"b,c')
    for key in formulas:
        lapsing(world, key=key)
    world.plan(campaign("win_back"), "2026-06-01 08:30")
    pages = Pages(world, tmp_path, "2026-06-01 09:00")
    found = pages.post("user", "api/segment/export", {"segment": "lapsed"})
    assert pages.headers["content-disposition"] == 'attachment; filename="lapsed.csv"'
    rows = list(csv.DictReader(io.StringIO(found)))
    assert {row["source_customer_id"].removeprefix("'") for row in rows} == set(formulas)
    assert not any(value.lstrip(" ").startswith(("=", "+", "-", "@", "\t")) for row in rows for value in row.values())
    assert rows[0]["orders"] == "1" and "customers.example" not in found and "Ana" not in found
