"""A campaign whose mail bounces, or is called spam, stops itself; whoever has looked may let it go on."""

from __future__ import annotations

from datetime import datetime

import pytest
from sqlalchemy import Engine

from crowd import due, people, plain
from postlude import db, pipeline, switch
from postlude.errors import GateClosed
from world import World, at, days

NOW = at("2026-03-02 12:00")


@pytest.fixture
def world(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr(db, "default_engine", lambda: engine)
    return World(engine)


def went(
    world: World, count: int, when: datetime, kind: str = "marketing", anchor: str = "x", name: str = "offer"
) -> None:
    """So many mails of a campaign were handed over."""
    customers = world.do("select customer_id from customers order by 1 limit :n", n=count)
    due(world, plain(name, kind=kind), [row[0] for row in customers], when, days(3), anchor)
    world.do(
        "update messages set state = 'sent', handed_over_at = :at, finalized_at = :at where state = 'scheduled'",
        at=when,
    )


def told(world: World, kind: str, count: int, when: datetime, name: str = "offer") -> None:
    """So many of the campaign's mails that went at `when` are reported on, others each time."""
    world.do(
        "insert into events (event_id, kind, message_id, customer_id, at, known_at, source) "
        "select gen_random_uuid(), :kind, m.message_id, m.customer_id, :at, :at, 'email' from messages as m "
        "where m.handed_over_at = :at and m.campaign_id = :name "
        "and not exists (select 1 from events as e where e.message_id = m.message_id) order by m.message_id limit :n",
        kind=kind, n=count, at=when, name=name,
    )  # fmt: skip


def watch(world: World, now: datetime) -> str:
    """What on-call is told; empty: nothing."""
    try:
        pipeline.watch(now, f"watch at {now}", "test")
    except GateClosed as closed:
        return str(closed)
    return ""


def stopped(world: World) -> list[str]:
    with db.transaction(world.engine) as conn:
        return [stop.name for stop in switch.in_force(conn)]


def test_a_campaign_whose_mail_bounces_is_stopped_until_somebody_has_looked(world: World) -> None:
    customers = people(world, 300)
    sent = NOW - days(2)
    went(world, 199, sent)
    told(world, "bounced", 100, sent)
    assert watch(world, NOW) == "" and not stopped(world), "too few to judge"

    went(world, 101, sent, anchor="y")
    said = watch(world, NOW + days(0.01))
    assert "offer is stopped: 100 of 300 bounced or were refused (33.3%, at most 5.0%)" in said
    assert stopped(world) == ["offer"]
    assert watch(world, NOW + days(0.02)) == "", "told once"
    due(world, plain("offer"), customers[:3], NOW, days(3), anchor="z")
    assert world.deliver(plain("offer"), now=NOW + days(0.03)) == {}, "nothing more goes out"

    with db.transaction(world.engine) as conn:
        switch.go(conn, "campaign", "offer", "the import was wrong, those addresses are gone", "ana", NOW + days(0.04))
    assert watch(world, NOW + days(0.05)) == "", "what had gone before counts no more"
    assert world.deliver(plain("offer"), now=NOW + days(0.06)) == {"sent": 3}
    went(world, 200, NOW + days(0.1), anchor="after")
    told(world, "bounced", 11, NOW + days(0.1))
    assert "offer is stopped: 11 of 203" in watch(world, NOW + days(1))


def test_complaints_weigh_more_and_two_of_them_are_chance(world: World) -> None:
    people(world, 300)
    sent = NOW - days(1)
    for name, complaints in (("liked", 2), ("hated", 3)):
        went(world, 300, sent, name=name)
        told(world, "complained", complaints, sent, name)
    assert watch(world, NOW).startswith("hated is stopped: 3 of 300 complained (1.0%, at most 0.3%)")
    assert stopped(world) == ["hated"]


def test_refusals_count_old_mail_does_not_and_a_notice_about_an_order_always_goes(world: World) -> None:
    people(world, 200)
    went(world, 200, NOW - days(8), name="long_ago")
    told(world, "bounced", 100, NOW - days(8), "long_ago")
    went(world, 200, NOW - days(1), name="notice", kind="transactional")
    told(world, "bounced", 100, NOW - days(1), "notice")
    assert watch(world, NOW) == ""
    went(world, 200, NOW - days(1), name="refused")
    world.do("update messages set state = 'failed', reason = 'refused_recipient', handed_over_at = null "
             "where campaign_id = 'refused' and customer_id % 4 = 0")  # fmt: skip
    assert "refused is stopped: 50 of 200" in watch(world, NOW)
