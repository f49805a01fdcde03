"""Control groups: drawn once, archived, and left alone whatever is changed later."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from postlude import db, why
from postlude.campaign import Campaign
from postlude.settings import settings
from test_flow import lapsing
from world import World, at, campaign


@pytest.fixture
def world(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    yield World(engine)
    monkeypatch.undo()
    settings.cache_clear()


def holding(share: float, name: str = "win_back") -> Campaign:
    planned = campaign(name)
    return planned.model_copy(update={"audience": planned.audience.model_copy(update={"holdout": share})})


def put(monkeypatch: pytest.MonkeyPatch, **values: object) -> None:
    for name, value in values.items():
        monkeypatch.setenv(f"POSTLUDE_{name.upper()}", str(value))
    settings.cache_clear()


def test_who_was_drawn_stays_on_their_side_when_share_and_salt_change(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    people = [lapsing(world) for _ in range(40)]
    world.plan(holding(0.5), "2026-06-01 08:30")
    drawn = dict(tuple(row) for row in world.do("select customer_id, arm from enrolments"))
    assert set(drawn.values()) == {"treated", "holdout"}
    put(monkeypatch, holdout_salt="another salt")
    # everybody orders and lapses again: a second passage, drawn under a new share and salt, were it drawn anew
    for who in people:
        world.order(who, "2026-06-02 08:00")
    world.plan(holding(0.1), "2026-11-29 09:00")
    again = dict(
        tuple(row) for row in world.do("select customer_id, arm from enrolments where enrolled_at > '2026-11-01'")
    )
    assert again == drawn
    assert world.do("select distinct share, salt from holdouts") == [(0.5, "postlude")]


def test_the_global_control_group_gets_no_marketing_from_any_campaign(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(monkeypatch, global_holdout=0.2)
    people = [lapsing(world) for _ in range(60)]
    for who in people:
        world.order(who, "2026-05-01", delivered="2026-05-03")
        world.do("delete from orders where customer_id = :c and placed_at > '2026-04-01' and :c % 2 = 0", c=who)
    ask, back = holding(0.0, "feedback_30d"), holding(0.0)
    world.plan(back, "2026-06-01 08:30")
    world.plan(ask, "2026-06-01 08:30")
    held = {row[0] for row in world.do("select customer_id from holdouts where campaign_id = '' and held")}
    assert 2 <= len(held) <= 25
    got = {row[0] for row in world.do("select customer_id from enrolments where arm = 'treated'")}
    assert got | held == set(people)
    assert not got & held
    assert {row[0] for row in world.do("select distinct campaign_id from enrolments where arm = 'holdout'")} == {
        "win_back",
        "feedback_30d",
    }
    world.deliver(ask, back, now="2026-06-02 12:00")
    world.deliver(ask, back, now="2026-06-03 12:00")
    assert {who for who in people if world.received(who)} <= got
    one = next(iter(held))
    with db.transaction(world.engine) as conn:
        lines = why.explain(conn, why.people(conn, str(one))[0], back, world.calendar, at("2026-06-03"))
    assert [(line.verdict, line.detail) for line in lines if line.predicate == "not in the holdout"] == [
        ("no", "in the global control group, which no marketing campaign writes to")
    ]


def test_transactional_campaigns_know_no_global_control_group(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    put(monkeypatch, global_holdout=0.2)
    for _ in range(30):
        world.order(world.customer(), "2026-05-01", delivered="2026-05-03")
    notice = campaign("feedback_30d", kind="transactional")
    assert world.plan(notice, "2026-05-05")["holdout"] == 0
    assert world.one("select count(*) from holdouts") == 0
