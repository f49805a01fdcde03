"""Many connections in one thread: the promises of one connection hold for each of them, whoever dies, stalls or says no."""

from __future__ import annotations

import contextlib
import time
from datetime import datetime
from typing import Any

import pytest
from sqlalchemy import Engine

from faulty import START, Killed, Mortal, batch, go_on, put_back, settle_accounts, worker
from postlude.letter import Desk
from sink import Sink
from test_outbox_faults import CORE
from world import World

LINES = 3


@pytest.fixture
def world(engine: Engine) -> World:
    return batch(engine)


def dies_at(world: World, kind: str, last: int | None) -> list[str]:
    """Die at the `last`-th commit or write of any connection, go on, settle accounts; the points passed."""
    put_back(world, kind)
    with Sink() as sink:
        mortal = Mortal(last)
        with mortal.watching(world.engine), contextlib.suppress(Killed):
            worker(world, sink.url(), START, "first", lanes=LINES).deliver()
        taken, sent = len(sink.accepted), world.one("select count(*) from messages where state = 'sent'")
        open_ = world.one("select count(*) from messages where state = 'sending' and handed_over_at is not null")
        assert taken - sent <= open_, "taken, and nobody has written down that it may be"
        go_on(world, sink, rounds=3)
        account = settle_accounts(world, sink.ledger)
        assert account.states["sent"] + account.states["unknown"] == 8, account.states
        # between intent and dot at most one message of each connection
        assert account.unknown_copies.count(0) <= LINES
    return mortal.points


@pytest.mark.parametrize("kind", ["marketing", "transactional"])
def test_a_worker_that_dies_at_any_point_of_any_connection_sends_nothing_twice(world: World, kind: str) -> None:
    points = dies_at(world, kind, None)
    assert {"before the final dot is written", "after the final dot is written", "before QUIT is written"} <= set(
        points
    )
    for last in range(2, len(points), 7):
        dies_at(world, kind, last)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["marketing", "transactional"])
def test_every_point_of_every_connection(world: World, kind: str) -> None:
    for last in range(1, len(dies_at(world, kind, None)) + 1):
        dies_at(world, kind, last)


def test_a_relay_that_fails_at_one_step_of_one_connection(world: World) -> None:
    query = "timeout=2&timeout_quit=0.2&timeout_dot=0.3&timeout_command=0.3&timeout_data=0.3&timeout_banner=0.3"
    for step, action in CORE:
        put_back(world, "marketing")
        with Sink(faults=[(step, action)]) as sink:
            counts = worker(world, sink.url(query), START, lanes=LINES).deliver()
            assert counts["sent"] >= 6 or step == "banner", (step, action, counts)
            go_on(world, sink, query=query, rounds=4)
            account = settle_accounts(world, sink.ledger)
            assert account.states["sent"] >= 7 and account.most_copies == 1, (step, action, account)


def test_a_connection_that_stalls_holds_up_no_other(world: World) -> None:
    with Sink(faults=[("mail", "stall")]) as sink:
        began = time.monotonic()
        counts = worker(world, sink.url("timeout=2&timeout_quit=0.2"), START, lanes=LINES).deliver()
        assert counts["sent"] == 7 and counts["scheduled:not_now"] == 1
        assert max(entry.at for entry in sink.accepted) - began < 1.5
        assert time.monotonic() - began < 5


def test_connections_are_renewed_and_their_numbers_come_again(world: World) -> None:
    with Sink() as sink:
        assert worker(world, sink.url("timeout=5&session=1"), START, lanes=LINES).deliver() == {"sent": 8}
        assert sorted(sink.sessions) == [1] * 8


def test_nobody_listening_opens_the_breaker_and_everything_goes_back(world: World) -> None:
    with Sink() as sink:
        url = sink.url()
    counts = worker(world, url, START, lanes=LINES).deliver()
    assert counts["relay_down"] == 1 and "sent" not in counts
    assert {state for _, state, _ in world.states()} == {"scheduled"}
    assert world.one("select count(*) from attempts where settled_at is null") == 0


def test_a_mail_that_breaks_the_writer_is_met_when_it_is_its_turn_and_not_before(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: dict[object, int] = {}
    write = Desk.write

    def broken(desk: Desk, letter: Any, now: datetime) -> Any:
        if begun.setdefault(letter.message_id, len(begun)) == 7:
            raise RuntimeError("nobody foresaw this")
        return write(desk, letter, now)

    monkeypatch.setattr(Desk, "write", broken)
    with Sink() as sink, pytest.raises(RuntimeError, match="nobody foresaw"):
        worker(world, sink.url(), START, lanes=LINES).deliver()
    assert len(begun) == 8
    assert len(sink.accepted) >= 8 - LINES, "those before it went out"
