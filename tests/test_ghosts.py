"""The control group has its turn when its members would have been written to, and nobody ever writes to them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as tuned
from hypothesis import strategies as st
from sqlalchemy import Engine

from crowd import due, people, plain
from postlude import db, enrolment
from postlude.calendar import Blackout, Pressure, Window
from postlude.campaign import Campaign
from test_flow import lapsing
from world import World, at, calendar, campaign, days

SLOW = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture]}
ALWAYS = Window(opens="00:00", closes="23:59")  # type: ignore[arg-type]


@pytest.fixture
def world(engine: Engine) -> World:
    return World(engine)


def passage(world: World, planned: Campaign, customer: int, began: str, arm: str) -> None:
    """One customer's passage through `planned`, as enrolling writes it."""
    with db.transaction(world.engine) as conn:
        enrolment.remember_version(conn, planned, at(began))
    world.do(
        "insert into enrolments (enrolment_id, campaign_id, version, customer_id, anchor_key, anchor_at, watch_from, arm, "
        "enrolled_at, run_id) values (uuid_of('enrolment', :id, cast(cast(:c as bigint) as text), 'x'), :id, :version, :c, 'x', "
        ":at, :at, :arm, :at, 'test')",
        id=planned.id, version=planned.version, c=customer, at=at(began), arm=arm,
    )  # fmt: skip


def schedule(world: World, planned: Campaign, now: Any, release: bool = True) -> dict[str, int]:
    with db.transaction(world.engine) as conn:
        counts = enrolment.schedule(conn, planned, world.calendar, now, "test")
        if release:
            enrolment.release(conn, planned)
    return counts


def ghosts(world: World) -> list[tuple[Any, ...]]:
    return [
        tuple(row) for row in world.do("select campaign_id, state, reason, went_at from ghost_messages order by 1, 2")
    ]


# ---------------------------------------------------------------- the same time as a twin

STEPS = st.lists(
    st.tuples(st.integers(0, 120), st.integers(6, 90)), min_size=1, max_size=3
)  # hours after the anchor, hours of life
CAMPAIGNS = st.lists(
    st.tuples(st.integers(1, 3), STEPS, st.sampled_from([None, 30]), st.sampled_from([(), ("ordered",)])),
    min_size=1,
    max_size=3,
)
EVENTS = st.lists(
    st.tuples(st.sampled_from(["order", "no", "yes", "ticket"]), st.integers(1, 150)),
    max_size=3,
    unique_by=lambda e: e[1],
)
PRESSURE = st.fixed_dictionaries(
    {
        "caps": st.lists(
            st.builds(lambda m, h: {"most": m, "within": f"{h} hours"}, st.integers(1, 3), st.integers(2, 72)),
            max_size=2,
        ),
        "gap": st.sampled_from(["0 hours", "12 hours"]),
        "when_full": st.sampled_from(["defer", "skip"]),
    }
)


@tuned(max_examples=12, **SLOW)
@given(
    plans=CAMPAIGNS,
    events=EVENTS,
    pressure=PRESSURE,
    zone=st.sampled_from(["Europe/Berlin", "America/New_York", "Asia/Seoul"]),
    blackout=st.booleans(),
    opens=st.sampled_from(["00:00", "09:00"]),
)
def test_a_ghost_goes_when_its_treated_twin_does(
    world: World,
    plans: list[tuple[int, list[tuple[int, int]], int | None, tuple[str, ...]]],
    events: list[tuple[str, int]],
    pressure: dict[str, Any],
    zone: str,
    blackout: bool,
    opens: str,
) -> None:
    began = "2026-03-27 10:00"
    world.do("truncate campaign_versions, customers, orders, consents, holdouts, tickets, kill_switches cascade")
    world.calendar = calendar(
        pressure=Pressure.model_validate(pressure), windows={}, window=Window(opens=opens, closes="20:00"),  # type: ignore[arg-type]
        blackout_days=(Blackout(date=at("2026-03-29").date(), why="a test"),) if blackout else (),
    )  # fmt: skip
    (ana,) = people(world, 1, zone=zone)
    for what, hour in events:
        moment = at(began) + timedelta(hours=hour)
        if what == "order":
            world.order(ana, f"{moment:%Y-%m-%d %H:%M}")
        elif what == "ticket":
            world.do("insert into tickets values ('shop', :k, :c, :at, :until)",
                     k=str(hour), c=ana, at=moment, until=moment + timedelta(hours=20))  # fmt: skip
        else:
            world.do("insert into consents values (:c, 'email', 'marketing', :said, :at, 'opt_in', :at)",
                     c=ana, said=what == "yes", at=moment)  # fmt: skip
    model = plain("c").steps[0]
    campaigns = [
        plain(
            f"c{n}", priority=priority, at_most_every=timedelta(hours=every) if every else None, exit_on=ends, stop_while=("ticket_open",),
            steps=tuple(
                model.model_copy(update={
                    "id": f"s{k}", "on_day": None, "after": timedelta(hours=after), "expires_after": timedelta(hours=life), "at": None,
                })
                for k, (after, life) in enumerate(steps)
            ),
        )
        for n, (priority, steps, every, ends) in enumerate(plans)
    ]  # fmt: skip
    told = {}
    for arm in ("treated", "holdout"):
        world.do("truncate enrolments, holdouts cascade")
        world.post.taken.clear()
        if arm == "holdout":  # of everything: the twin whom every campaign may write to
            world.do("insert into holdouts values (:c, '', true, 0.1, 's', :at, 'test')", c=ana, at=at(began))
        now = at(began)
        for planned in campaigns:
            passage(world, planned, ana, began, arm)
            schedule(world, planned, now)
        while (next_at := world.one("select min(send_at) from turns where state = 'scheduled'")) is not None:
            now = max(now, next_at)
            with db.transaction(world.engine) as conn:
                enrolment.end_enrolments(conn, campaigns, now)
            world.deliver(*campaigns, now=now)
        told[arm] = [
            tuple(row)
            for row in world.do(
                "select t.message_id, t.state, t.reason, t.handed_over_at, t.finalized_at from turns t order by t.message_id"
            )
        ]
        assert world.one("select count(*) from messages") == (0 if arm == "holdout" else len(told[arm]))
    assert told["holdout"] == told["treated"]
    assert len(told["treated"]) == sum(len(steps) for _, steps, _, _ in plans)
    assert not world.post.taken, "a ghost was sent"


# ---------------------------------------------------------------- beside real messages


def test_a_ghost_competes_and_takes_nothing(world: World) -> None:
    (ana,) = people(world, 1)
    world.calendar = calendar(
        pressure=Pressure.model_validate({"caps": [{"most": 1, "within": "7 days"}]}),
        window=ALWAYS,
        windows={},
        blackout_days=(),
    )
    dear, news, late = plain("dear", priority=1), plain("news", priority=3), plain("late", priority=5)
    now = at("2026-06-01 10:00")
    for planned in (dear, late):
        passage(world, planned, ana, "2026-06-01 10:00", "holdout")
    due(world, news, [ana], now, days(3))
    for planned in (dear, late):
        first = planned.model_copy(update={"steps": planned.steps[:1]})
        world.do(
            "insert into ghost_messages (message_id, enrolment_id, campaign_id, step_id, customer_id, channel, kind, priority, state, "
            "due_at, send_at, expires_at, planned_at, run_id) select uuid_of('message', cast(e.enrolment_id as text), :step), "
            "e.enrolment_id, :id, :step, :c, 'email', 'marketing', :priority, 'scheduled', :now, :now, :until, :now, 'ghosts' "
            "from enrolments e where e.campaign_id = :id",
            id=planned.id, step=first.steps[0].id, c=ana, priority=planned.priority, now=now, until=now + days(1),
        )  # fmt: skip
    counts = world.deliver(dear, news, late, now=now)
    assert counts["sent"] == 1  # the ghost of the dearer campaign took no place from it
    assert [message.campaign_id for message, _ in world.post.taken] == ["news"]
    found = world.do("select campaign_id, state, reason, detail, went_at from ghost_messages order by 1")
    # neither knows of the other: each stands for a world in which this one campaign writes to ana
    assert [tuple(row)[:4] for row in found] == [
        ("dear", "went", None, None),
        ("late", "scheduled", "capped", "news/miss_you (at most 1 in 1 week)"),
    ]
    assert found[0][4] == now
    assert world.deliver(dear, news, late, now=now + timedelta(minutes=5)) == {}
    world.deliver(dear, news, late, now=now + days(1))
    assert ghosts(world)[1][:3] == ("late", "expired", "capped")


def test_a_ghost_waits_while_its_run_waits_for_a_person(world: World) -> None:
    ana, ben = people(world, 2)
    back = plain("back")
    passage(world, back, ana, "2026-06-01 08:00", "holdout")
    passage(world, back, ben, "2026-06-01 08:00", "treated")
    counts = schedule(world, back, at("2026-06-01 08:00"), release=False)
    assert counts == {"planned": len(back.steps), "ghosts": len(back.steps)}
    world.do("update messages set reason = 'awaiting_approval'")
    world.deliver(back, now="2026-06-01 12:00")
    assert {row[1] for row in ghosts(world)} == {"scheduled"}
    world.do("update messages set state = 'scheduled', reason = null")
    world.deliver(back, now="2026-06-01 12:30")
    assert ghosts(world)[-1][1:] == ("went", None, at("2026-06-01 12:30"))
    assert world.received(ben) == ["miss_you"]
    assert world.received(ana) == []


def test_the_control_group_passes_through_the_campaign_as_the_others_do(world: World) -> None:
    back = campaign("win_back")
    back = back.model_copy(update={"audience": back.audience.model_copy(update={"holdout": 0.5})})
    everybody = [lapsing(world) for _ in range(12)]
    counts = world.plan(back, "2026-06-01 08:30")
    held = {row[0] for row in world.do("select customer_id from enrolments where arm = 'holdout'")}
    assert held
    assert set(everybody) - held
    assert counts["ghosts"] == 4 * len(held)
    buyer = min(held)
    for day in range(32):
        now = at("2026-06-01 12:00") + days(day)
        world.deliver(back, now=now)
        if day == 7:
            world.order(buyer, "2026-06-08 10:00")
        world.plan(back, now)
    turns = {
        who: [tuple(row) for row in world.do(
            "select step_id, handed_over_at from turns where customer_id = :c and state = 'sent' order by 2", c=who)]
        for who in everybody
    }  # fmt: skip
    others = {tuple(turns[who]) for who in everybody if who != buyer}
    assert len(others) == 1, "both arms have their turns at the same instants"
    assert len(next(iter(others))) == 4
    assert len(turns[buyer]) == 2
    assert {tuple(row) for row in world.do("select arm, exit_reason from enrolments")} == {
        ("treated", "completed"), ("holdout", "completed"), ("holdout", "goal_met")}  # fmt: skip
    assert {message.recipient.address for message, _ in world.post.taken}.isdisjoint(
        {world.one("select email from customers where customer_id = :c", c=who) for who in held}
    )
    assert (
        world.one("select count(*) from messages m join enrolments e using (enrolment_id) where e.arm = 'holdout'") == 0
    )
    assert world.one("select count(*) from events") == 0


def test_the_effect_is_measured_from_the_turn_in_both_arms(world: World) -> None:
    ana, ben, cleo, dan = people(world, 4)
    back = plain("back", steps=plain("back").steps[:1])
    for who, arm in ((ana, "treated"), (ben, "holdout"), (cleo, "treated"), (dan, "holdout")):
        passage(world, back, who, "2026-06-01 08:00", arm)
    schedule(world, back, at("2026-06-01 08:00"))
    for who in (ana, ben):  # before their turn: it says nothing about the mail
        world.order(who, "2026-06-01 09:00")
    world.deliver(back, now="2026-06-02 12:00")
    for who in (cleo, dan):
        world.order(who, "2026-06-05 09:00")
    with db.transaction(world.engine) as conn:
        rows = db.run(conn, "66_report_effect", now=at("2026-08-01"), watch=days(30)).all()
        early = db.run(conn, "66_report_effect", now=at("2026-07-01"), watch=days(30)).all()
    assert [tuple(row) for row in rows] == [("back", "holdout", 2, 1), ("back", "treated", 2, 1)]
    assert early == []
