"""docs/why.md shows ten situations as `postlude why` tells them. The page is compared with what the code says now; after a change of
the words, write it anew with POSTLUDE_WRITE_DOCS=1."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Engine

from crowd import plain
from postlude import db, switch, why
from postlude.calendar import Pause, Pressure
from postlude.campaign import Campaign
from test_flow import lapsing
from world import World, at, calendar, campaign, days

PAGE = Path(__file__).resolve().parents[1] / "docs" / "why.md"
SIGNS = {"yes": "✓", "no": "✗", "fact": "·"}
Told = tuple[int, Campaign, str]  # customer, campaign, as of


def got_it(world: World) -> Told:
    ana = lapsing(world)
    back = campaign("win_back")
    world.plan(back, "2026-06-01 08:30")
    world.deliver(back, now="2026-06-01 09:30")
    return ana, back, "2026-06-01 10:00"


def before_it_was_sent(world: World) -> Told:
    ana, back, _ = got_it(world)
    return ana, back, "2026-06-01 09:00"


def never_agreed(world: World) -> Told:
    ana = lapsing(world, consent=None)
    world.plan(campaign("win_back"), "2026-06-01 08:30")
    return ana, campaign("win_back"), "2026-06-01 10:00"


def withdrew_in_time(world: World) -> Told:
    ana = lapsing(world)
    back = campaign("win_back")
    world.plan(back, "2026-06-01 08:30")
    world.consent(ana, False, "2026-06-01 08:45")
    world.deliver(back, now="2026-06-01 09:30")
    return ana, back, "2026-06-01 10:00"


def ordered_again(world: World) -> Told:
    ana = lapsing(world)
    back = campaign("win_back")
    world.plan(back, "2026-06-01 08:30")
    world.order(ana, "2026-06-01 08:50")
    world.deliver(back, now="2026-06-01 09:30")
    world.plan(back, "2026-06-01 09:40")
    return ana, back, "2026-06-01 10:00"


def dead_feed(world: World) -> Told:
    ana = lapsing(world)
    back = campaign("win_back")
    world.plan(back, "2026-06-01 08:30")
    world.feed_complete_until(at("2026-05-20"))
    world.deliver(back, now="2026-06-01 09:30", fresh=False)
    return ana, back, "2026-06-01 10:00"


def night_in_seoul(world: World) -> Told:
    ana = lapsing(world, zone="Asia/Seoul")
    back = campaign("win_back")
    world.plan(back, "2026-06-01 12:30")
    world.deliver(back, now="2026-06-01 13:00")
    return ana, back, "2026-06-01 13:05"


def enough_for_now(world: World) -> Told:
    world.calendar = calendar(pressure=Pressure.model_validate({"caps": [{"most": 1, "within": "7 days"}]}))
    ana = lapsing(world)
    first, back = plain("news", priority=1), campaign("win_back")
    world.plan(first, "2026-06-01 08:30")
    world.plan(back, "2026-06-01 08:30")
    world.deliver(first, back, now="2026-06-01 09:30")
    return ana, back, "2026-06-01 10:00"


def left_alone(world: World) -> Told:
    back = campaign("win_back")
    back = back.model_copy(update={"audience": back.audience.model_copy(update={"holdout": 0.5})})
    everybody = [lapsing(world) for _ in range(8)]
    world.plan(back, "2026-06-01 08:30")
    world.deliver(back, now="2026-06-01 09:30")
    held = [row[0] for row in world.do("select customer_id from enrolments where arm = 'holdout' order by 1")]
    assert set(held) < set(everybody)
    return held[0], back, "2026-06-01 10:00"


def paused(world: World) -> Told:
    ana = lapsing(world)
    back = campaign("win_back")
    world.calendar = calendar(
        pauses=(
            Pause.model_validate(
                {"campaign": "win_back", "from": "2026-06-01", "until": "2026-06-02", "why": "stocktaking"}
            ),
        )
    )
    world.plan(back, "2026-06-01 08:30")
    world.deliver(back, now="2026-06-01 09:30")
    return ana, back, "2026-06-01 10:00"


def stopped(world: World) -> Told:
    ana = lapsing(world)
    back = campaign("win_back")
    world.plan(back, "2026-06-01 08:30")
    with db.transaction(world.engine) as conn:
        switch.stop(conn, "campaign", "win_back", "wrong price in the mail", "Ben", at("2026-06-01 09:00"))
    world.deliver(back, now="2026-06-01 09:30")
    return ana, back, "2026-06-01 10:00"


def returned(world: World) -> Told:
    ana = world.customer()
    order = world.order(ana, "2026-05-01", delivered="2026-05-03")
    ask = campaign("feedback_30d")
    world.plan(ask, "2026-05-05 08:00")
    world.do("insert into returns (order_id, return_key, requested_at) values (:o, 'r', '2026-05-20')", o=order)
    world.plan(ask, at("2026-05-20 08:00") + days(1))
    return ana, ask, "2026-06-03 12:00"


SITUATIONS: dict[str, Callable[[World], Told]] = {
    "She got the mail": got_it,
    "The same, asked about half an hour before": before_it_was_sent,
    "She never agreed": never_agreed,
    "She withdrew before the mail went": withdrew_in_time,
    "She ordered between planning and hand-over": ordered_again,
    "The order feed is stale": dead_feed,
    "It is night where she lives": night_in_seoul,
    "Another campaign has the place": enough_for_now,
    "She is in the control group": left_alone,
    "The campaign is paused": paused,
    "Somebody pulled the kill switch": stopped,
    "She sent the item back": returned,
}


def shown() -> dict[str, str]:
    found = re.findall(r"^## (.+?)\n.*?```\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return dict(found)


@pytest.mark.parametrize("title", SITUATIONS)
def test_the_page_shows_what_why_says(engine: Engine, title: str) -> None:
    world = World(engine)
    customer, planned, now = SITUATIONS[title](world)
    with db.transaction(engine) as conn:
        lines = why.explain(conn, why.people(conn, str(customer))[0], planned, world.calendar, at(now))
    told = "".join(f"{SIGNS[line.verdict]} {line.predicate}: {line.detail}\n" for line in lines)
    told = f"$ postlude why {customer} {planned.id} --at '{now}'\n{told}"
    if os.environ.get("POSTLUDE_WRITE_DOCS"):
        page = PAGE.read_text(encoding="utf-8")
        body = re.compile(rf"(^## {re.escape(title)}\n.*?```\n).*?(```)", re.MULTILINE | re.DOTALL)
        PAGE.write_text(body.sub(lambda m: m.group(1) + told + m.group(2), page, count=1), encoding="utf-8")
    assert shown()[title] == told


def test_the_page_has_every_situation_and_no_other() -> None:
    assert list(shown()) == list(SITUATIONS)
