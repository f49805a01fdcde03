"""Tried again by what was said; what failed for good has a way back; what is unknown is settled by evidence. Each decision has a name."""

from __future__ import annotations

import json
import os
from datetime import timedelta
from uuid import UUID

import pytest
from sqlalchemy import Engine
from typer.testing import CliRunner

from faulty import START, batch, go_on, settle_accounts, worker
from postlude import cli, db, dead, outbox
from postlude.errors import InputError
from postlude.message import Outcome, uuid_of
from postlude.retries import next_try
from sink import Sink
from world import World

ONE = uuid_of("test", "one")
MINUTES = timedelta(minutes=1)


@pytest.fixture
def world(engine: Engine) -> World:
    return batch(engine, 2)


def tries(outcome: Outcome, message: UUID = ONE) -> list[timedelta]:
    """The waits until it is given up, when every hand-over ends so."""
    found = []
    for attempt in range(1, 20):
        if (wait := next_try(outcome, attempt, 5, message)) is None:
            break
        found.append(wait)
    return found


def test_a_greylister_is_asked_again_after_five_fifteen_and_forty_five_minutes() -> None:
    waits = tries(Outcome("deferred", "recipient", "451 4.7.1", retry_after=5 * MINUTES))
    assert len(waits) == 4
    for wait, usual in zip(waits, (5, 15, 45, 120), strict=True):
        assert 0.8 * usual * MINUTES <= wait <= 1.2 * usual * MINUTES
    assert waits[0] >= 5 * MINUTES  # never sooner than it asked for
    assert waits == tries(
        Outcome("deferred", "recipient", "451 4.7.1", retry_after=5 * MINUTES)
    )  # a replay is the same
    others = {tries(Outcome("deferred", "recipient"), uuid_of("test", str(n)))[1] for n in range(200)}
    assert len(others) > 150 and max(others) - min(others) > 4 * MINUTES  # they do not all come at once


def test_a_full_mailbox_gets_three_tries_and_a_relay_that_is_down_any_number() -> None:
    full = tries(Outcome("deferred", "recipient", "452 4.2.2", retry_after=timedelta(hours=4), tries=3))
    assert len(full) == 2 and all(timedelta(hours=4) <= wait <= timedelta(hours=4.8) for wait in full)
    down = Outcome("deferred", "relay", "connection refused", retry_after=MINUTES)
    waits = [next_try(down, n, 4 + n, ONE) for n in range(1, 40)]
    assert all(wait and MINUTES <= wait <= 18 * MINUTES for wait in waits)


def test_a_full_mailbox_is_a_dead_letter_in_the_end_and_suppresses_nobody(world: World) -> None:
    with Sink(replies={"rcpt": b"452 4.2.2 mailbox full\r\n"}) as sink:
        for hour in (0, 5, 10, 15):
            worker(world, sink.url(), START - timedelta(hours=1) + timedelta(hours=hour * 24 / 5)).deliver()
    assert {row[1:] for row in world.states()} == {("failed", "mailbox_full")}
    assert world.one("select max(attempt) from messages") == 3 and world.one("select count(*) from suppressions") == 0


def refused(world: World) -> list[UUID]:
    """Both messages refused by a relay's policy."""
    with Sink(replies={"dot": b"554 5.7.1 looks like spam\r\n"}) as sink:
        worker(world, sink.url(), START).deliver()
    with db.transaction(world.engine) as conn:
        letters = dead.dead_letters(conn)
    assert [(letter["reason"], letter["reply"], letter["attempts"]) for letter in letters] == [
        ("refused_policy", "554 5.7.1 looks like spam", 1)
    ] * 2
    assert all(len(letter["content_hash"]) == 64 for letter in letters)
    return sorted(letter["message_id"] for letter in letters)


def test_a_dead_letter_that_is_retried_passes_every_rule_again(world: World) -> None:
    first, second = refused(world)
    # the second customer has said no meanwhile
    gone = world.one("select customer_id from messages where message_id = :m", m=second)
    world.consent(gone, False, "2026-06-01 12:30")
    with db.transaction(world.engine) as conn:
        assert dead.retry(conn, [first, second], "Kim", "the relay has listed us again", START) == 2
    with Sink() as sink:
        go_on(world, sink, START + timedelta(hours=1), rounds=2)
        settle_accounts(world, sink.ledger, lost_answers=0)
        assert len(sink.accepted) == 1
    found = dict(world.do("select message_id, state || ':' || coalesce(reason, '') from messages"))  # type: ignore[arg-type]
    assert found == {first: "sent:", second: "skipped:no_consent"}
    assert set(world.do("select action, from_reason, decided_by, why from interventions")) == {
        ("retried", "refused_policy", "Kim", "the relay has listed us again")
    }


def test_a_dropped_dead_letter_is_listed_no_longer_and_nothing_is_decided_without_who_and_why(world: World) -> None:
    first, second = refused(world)
    with db.transaction(world.engine) as conn:
        dead.drop(conn, [first], "Kim", "an old address", START + timedelta(hours=1))
        assert [letter["message_id"] for letter in dead.dead_letters(conn)] == [second]
    for by, why in (("", "because"), ("Kim", " ")):
        with pytest.raises(InputError, match="who and why"), db.transaction(world.engine) as conn:
            dead.retry(conn, [second], by, why, START)
    with pytest.raises(InputError, match="nothing was changed"), db.transaction(world.engine) as conn:
        dead.retry(conn, [second, ONE], "Kim", "all of them", START)
    assert world.one("select count(*) from messages where state = 'failed'") == 2  # one transaction: the first neither


def lose(world: World) -> list[UUID]:
    with Sink(faults=[("dot-after-store", "close")], times=2) as sink:
        for minute in (0, 5):
            worker(world, sink.url(), START + minute * MINUTES).deliver()
    found = world.do("select message_id from messages where state = 'unknown' order by 1")
    assert len(found) == 2
    return [row[0] for row in found]


def test_what_is_unknown_is_settled_by_hand_with_evidence_or_stays_so_for_good(world: World) -> None:
    first, second = lose(world)
    with db.transaction(world.engine) as conn:
        assert [row["final"] for row in dead.unknown_letters(conn, START + timedelta(hours=71))] == [False, False]
        assert [row["final"] for row in dead.unknown_letters(conn, START + timedelta(hours=73))] == [True, True]
        dead.settle(
            conn, first, True, "Kim", "asked the relay", "queued as 4711 in its log", START + timedelta(hours=80)
        )
        dead.settle(conn, second, False, "Kim", "asked the relay", "not in its log", START + timedelta(hours=80))
        told = [(row["what"], row["told"]) for row in dead.story(conn, first)]
        assert told[0] == ("attempt 1", "ambiguous, after the final dot: connection closed")
        assert told[1] == ("settled by Kim", "unknown -> sent; asked the relay; queued as 4711 in its log")
    with pytest.raises(InputError, match="--evidence"), db.transaction(world.engine) as conn:
        dead.settle(conn, first, True, "Kim", "I think so", "", START)
    found = dict(world.do("select message_id, state || ':' || coalesce(reason, '') from messages"))  # type: ignore[arg-type]
    assert found == {first: "sent:", second: "failed:not_accepted"}
    # a marketing message goes again only so: by a person's word, twice
    outbox.recover(world.engine, START + timedelta(hours=81))
    assert outbox.send_again(world.engine, START + timedelta(hours=81))["sent_again"] == 0
    with db.transaction(world.engine) as conn:
        dead.retry(conn, [second], "Kim", "it never arrived", START + timedelta(hours=82))
    with Sink() as sink:
        worker(world, sink.url(), START + timedelta(days=4)).deliver()
        assert len(sink.accepted) == 1


def test_the_commands_show_and_decide(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = refused(world)
    monkeypatch.setattr(cli, "_ready", lambda: None)
    monkeypatch.setattr(db, "default_engine", lambda: world.engine)

    def run(*words: str) -> dict[str, object]:
        result = CliRunner().invoke(cli.app, [*words, "--json"], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return json.loads(result.output)  # type: ignore[no-any-return]

    assert len(run("dead", "list")["dead"]) == 2  # type: ignore[arg-type]
    assert run("dead", "show", str(first))["reason"] == "refused_policy"
    assert run("dead", "drop", str(first), "--why", "old", "--by", "Kim") == {"dropped": 1}
    assert run("dead", "retry", str(second), "--why", "mended", "--by", "Kim") == {"due again": 1}
    assert run("unknown", "list") == {"unknown": []}
    plain = CliRunner().invoke(cli.app, ["dead", "list"], env=os.environ | {"COLUMNS": "200"})
    assert "No dead letters." in plain.output
