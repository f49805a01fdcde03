"""What the pages count per day equals what is in the tables, however often it is counted, also when a clock goes back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import Engine

from postlude import db, tallies
from postlude.message import Outcome
from test_flow import lapsing
from world import World, at, campaign


@pytest.fixture
def world(engine: Engine) -> Iterator[World]:
    yield World(engine)


def counted(world: World, now: str, full: bool = False) -> Any:
    with db.transaction(world.engine) as conn:
        tallies.refresh(conn, at(now), full)
    return world.do(
        "select what, campaign_id, step_id, state, reason, day, open, count from tallies order by 1, 2, 3, 4, 5, 6, 7"
    )


def test_counts_taken_day_by_day_equal_counts_from_scratch(world: World) -> None:
    back = campaign("win_back")
    for number in range(6):
        lapsing(world, consent=number != 5)
    took, refused = Outcome("accepted", provider_id="1"), Outcome("refused", scope="message", reply="550 no")
    world.post.answer = lambda message: took if message.message_id.int % 2 else refused
    seen = []
    for day in ("2026-06-01", "2026-06-02", "2026-06-07", "2026-06-08", "2026-06-14"):
        world.plan(back, f"{day} 08:30")
        world.deliver(back, now=f"{day} 09:30")
        if sent := world.do(
            "select message_id, customer_id from messages where state = 'sent' order by handed_over_at desc limit 1"
        ):
            for number in range(2):  # opened twice, counted once
                world.do(
                    "insert into events (event_id, message_id, customer_id, kind, at, known_at, source) "
                    "values (gen_random_uuid(), :m, :c, 'opened', :at, :at, 'test')",
                    m=sent[0][0], c=sent[0][1], at=at(f"{day} 1{number}:00"),
                )  # fmt: skip
        seen.append(counted(world, f"{day} 23:00"))
    assert seen[-1] == counted(world, "2026-06-14 23:00", full=True)
    total = {(row[0], row[3]): 0 for row in seen[-1]}
    for row in seen[-1]:
        total[(row[0], row[3])] += row[7]
    assert {state: count for (what, state), count in total.items() if what == "message"} == dict(
        (row[0], row[1]) for row in world.do("select state, count(*) from messages group by 1")
    )
    assert total[("event", "opened")] == world.one("select count(distinct message_id) from events")
    assert total[("refusal", "not_enrolled")] == world.one("select count(*) from refusals") > 0
    # a rehearsal as of the past writes into a day that was counted
    lapsing(world, "2026-05-01 08:00")
    world.plan(back, "2026-05-01 08:30")
    world.deliver(back, now="2026-05-01 09:30")
    assert counted(world, "2026-05-01 10:00") == counted(world, "2026-06-14 23:30", full=True)


def test_two_who_count_at_once_do_not_wait_for_each_other(world: World) -> None:
    with world.engine.begin() as one, world.engine.begin() as other:
        tallies.refresh(one, at("2026-06-01"))
        assert tallies.refresh(other, at("2026-06-01")) == {"tallies": 0}
