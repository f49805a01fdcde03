"""Real deaths: workers killed by the system, two deliveries at once, a worker that comes back, a database that restarts, a full disk."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine

from conftest import ROOT
from faulty import START, batch, go_on, put_back, settle_accounts, worker
from postlude import db, outbox
from postlude.errors import Unavailable
from sink import Sink
from world import World

KINDS = ("marketing", "transactional")


@pytest.fixture
def world(engine: Engine) -> World:
    return batch(engine)


def spawn(world: World, sink: Sink, name: str) -> subprocess.Popen[str]:
    """A worker in a process of its own, about to begin."""
    env = os.environ | {"PYTHONPATH": f"{ROOT / 'plugins'}{os.pathsep}{ROOT / 'tests'}"}
    url = world.engine.url.render_as_string(hide_password=False)
    command = [sys.executable, str(ROOT / "tests" / "a_worker.py"), url, sink.url(), name]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env)


def at_the(number: int, do: Callable[[], None]) -> Callable[[], None]:
    """Called often, does it the `number`-th time."""
    calls: list[int] = []

    def count() -> None:
        calls.append(1)
        if len(calls) == number:
            do()

    return count


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_worker_killed_by_the_system_sends_nothing_twice_and_loses_nothing(world: World, kind: str) -> None:
    for step in ("mail", "dot-before-store", "dot-after-store", "quit"):
        put_back(world, kind)
        world.feed_complete_until(START)
        with Sink() as sink:
            started: list[subprocess.Popen[str]] = []
            sink.at[step] = at_the(1 if step == "quit" else 3, lambda: started[0].send_signal(signal.SIGKILL))  # noqa: B023
            started.append(spawn(world, sink, f"dies at {step}"))
            assert started[0].wait(60) == -signal.SIGKILL, step
            sink.at.clear()
            go_on(world, sink, rounds=3)
            account = settle_accounts(world, sink.ledger, lost_answers=1)
        assert account.states["sent"] >= 7, (step, account)


@pytest.mark.slow
def test_a_worker_told_to_stop_ends_its_message_and_releases_the_rest(world: World) -> None:
    world.feed_complete_until(START)
    with Sink() as sink:
        started: list[subprocess.Popen[str]] = []

        def tell() -> None:
            started[0].send_signal(signal.SIGTERM)
            threading.Event().wait(1)  # the answer to the third message comes after the signal

        sink.at["dot-after-store"] = at_the(3, tell)
        started.append(spawn(world, sink, "told"))
        assert started[0].wait(30) == -signal.SIGTERM
        states = dict(world.do("select state, count(*) from messages group by state"))  # type: ignore[arg-type]
        assert states == {"sent": 3, "scheduled": 5} and len(sink.accepted) == 3
        assert world.one("select count(*) from attempts where settled_at is null") == 0
        assert world.one("select count(*) from messages where state = 'scheduled' and attempt >= max_attempts") == 0
        go_on(world, sink, rounds=1)  # the rest waits for no lease
        assert settle_accounts(world, sink.ledger).states == {"sent": 8}


def test_two_deliveries_at_once_share_the_work(world: World) -> None:
    world.feed_complete_until(START)
    with Sink() as sink:
        boxes = [worker(world, sink.url(), START, f"w{n}", batch=2) for n in range(3)]
        threads = [threading.Thread(target=box.deliver) for box in boxes]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert settle_accounts(world, sink.ledger).states == {"sent": 8}
        assert len(sink.accepted) == 8


@pytest.mark.parametrize("step", ["rcpt", "dot-after-store"])
def test_a_worker_that_comes_back_after_its_lease_changes_nothing(world: World, step: str) -> None:
    """It was stopped in the middle of a message; meanwhile its claims were recovered and sent by others."""
    late = START + timedelta(minutes=20)
    with Sink() as sink:

        def meanwhile() -> None:
            outbox.recover(world.engine, late)
            worker(world, sink.url(), late, "second").deliver()

        sink.at[step] = at_the(1, meanwhile)
        first = worker(world, sink.url("timeout=30"), START, "zombie")
        first.deliver()
        assert first.counts["lost_claim"] >= 1
        go_on(world, sink, late, rounds=2)
        account = settle_accounts(world, sink.ledger, lost_answers=1)
        # before the dot nothing was lost; after it the zombie's own copy is the only one
        assert account.states == ({"sent": 8} if step == "rcpt" else {"sent": 7, "unknown": 1})
        assert set(account.copies.values()) == {1}


def test_a_relay_with_a_full_disk_gets_the_rest_later(world: World) -> None:
    with Sink(space=3) as sink:
        counts = worker(world, sink.url(), START).deliver()
        assert counts["sent"] == 3 and counts["relay_down"] == 1  # no attempt is used up for a disk of theirs
        sink.space = None
        go_on(world, sink)
        account = settle_accounts(world, sink.ledger, lost_answers=0)
    assert account.states == {"sent": 8} and account.most_copies == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_relay_that_takes_a_message_and_dies_before_it_says_so(world: World, kind: str) -> None:
    put_back(world, kind)
    with Sink() as first:
        first.at["dot-after-store"] = at_the(3, first.die)
        worker(world, first.url(), START).deliver()
        assert len(first.accepted) == 3
        with Sink(port=first.port, ledger=first.ledger) as second:
            go_on(world, second, rounds=4)
            account = settle_accounts(world, second.ledger, lost_answers=1)
    assert account.states == ({"sent": 7, "unknown": 1} if kind == "marketing" else {"sent": 8})
    assert account.most_copies == (1 if kind == "marketing" else 2)


# ---------------------------------------------------------------- the database goes away


@pytest.fixture
def own_server() -> Iterator[tuple[Path, Engine]]:
    """A durable PostgreSQL of this test alone."""
    data = Path(tempfile.mkdtemp(prefix="pg-faults-")) / "data"
    url = db.start_embedded(data).set(database="postlude")
    db.create_database(url)
    db.migrate(url)
    made = db.engine(url)
    yield data, made
    made.dispose()
    db.stop_embedded(data)


@pytest.mark.slow
@pytest.mark.parametrize("step", ["mail", "dot-before-store", "dot-after-store"])
def test_a_database_that_restarts_or_stays_away_in_the_middle_of_a_delivery(
    own_server: tuple[Path, Engine], step: str
) -> None:
    data, engine = own_server
    world = batch(engine)
    for kind, comes_back in (("marketing", True), ("marketing", False), ("transactional", False)):
        put_back(world, kind)
        world.feed_complete_until(START)
        with Sink() as sink:

            def go_away(comes_back: bool = comes_back) -> None:
                db.stop_embedded(data)
                if comes_back:
                    db.start_embedded(data)

            sink.at[step] = at_the(3, go_away)
            box = worker(world, sink.url("timeout=60"), START)
            try:
                box.deliver()
            except Unavailable:
                assert not comes_back
            sink.at.clear()
            db.start_embedded(data)
            engine.dispose()
            go_on(world, sink, rounds=4)
            account = settle_accounts(world, sink.ledger, lost_answers=1)
            assert account.states["sent"] >= 7, (kind, comes_back, account)
