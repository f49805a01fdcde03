"""What the simulator found at the hand-over, each as the smallest story that shows it."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import Engine

from postlude import db, enrolment, outbox
from postlude.message import Outcome
from world import World, at, campaign


@pytest.fixture
def world(engine: Engine) -> World:
    return World(engine)


def lapsing(world: World) -> int:
    """A customer who lapses on 2026-06-01 08:00."""
    customer = world.customer()
    world.order(customer, "2025-12-03 08:00")
    return customer


def test_a_lost_answer_does_not_keep_a_passage_open_for_ever(world: World) -> None:
    """An open passage refuses the customer's next one: a lost answer must not be a ban for life."""
    customer = lapsing(world)
    back = campaign("win_back")
    world.plan(back, "2026-06-01 08:30")
    for day in (1, 7, 14, 25):
        world.post.answer = (lambda message: Outcome("ambiguous", reply="connection lost")) if day == 25 else None
        world.deliver(back, now=f"2026-06-{day:02} 12:00")
    assert world.states(customer)[-1] == ("last_word", "unknown", "answer_lost")
    with db.transaction(world.engine) as conn:
        enrolment.end_enrolments(conn, [back], at("2026-08-01"))
    assert world.one("select exit_reason from enrolments") == "completed"


def test_a_worker_killed_right_after_the_settlement_has_suppressed_the_dead_mailbox(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Killed(BaseException):
        pass

    lapsing(world)
    back = campaign("win_back")
    world.plan(back, "2026-06-01 08:30")
    world.post.answer = lambda message: Outcome("refused", scope="recipient", reply="5.1.1 no such user", suppress=True)
    finish = outbox.Outbox._finish

    def finish_and_die(*args: object, **more: object) -> None:
        finish(*args, **more)  # type: ignore[arg-type]
        raise Killed

    monkeypatch.setattr(outbox.Outbox, "_finish", finish_and_die)
    with pytest.raises(Killed):
        world.deliver(back, now="2026-06-01 12:00")
    assert world.states()[0] == ("miss_you", "failed", "refused_recipient")
    assert world.one("select array_agg(reason) from suppressions") == ["hard_bounce"]


def test_a_worker_slower_than_its_lease_hands_nothing_over_even_if_nobody_has_recovered_it(world: World) -> None:
    """What it judged is an hour old: the window may have closed, the customer may have ordered. It is judged anew."""
    customer = lapsing(world)
    back = campaign("win_back")
    world.plan(back, "2026-06-01 08:30")
    clock = [at("2026-06-01 19:50")]

    def stall(message: object) -> None:
        clock[0] += timedelta(hours=1)

    world.post.before_intent = stall
    world.feed_complete_until(clock[0])
    slow = outbox.Outbox(
        engine=world.engine, channel=world.post, url="", campaigns=[back], calendar=world.calendar, clock=lambda: clock[0],
        worker="slow",
    )  # fmt: skip
    slow.deliver(limit=1)
    assert world.received(customer) == []
    world.post.before_intent = None
    world.deliver(back, now="2026-06-02 12:00")
    assert world.received(customer) == ["miss_you"]
