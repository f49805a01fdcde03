"""The outbox under faults: whatever happens to relay, worker or database, no message is sent twice or lost, and counts add up.

`tests/faulty.py` has the account that every story ends with. The crash table of docs/delivery.md is made here; after a change of
the hand-over run `POSTLUDE_WRITE_DOCS=1 pytest tests/test_outbox_faults.py -k crash`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from datetime import timedelta

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL

from conftest import ROOT
from faulty import START, Killed, Mortal, batch, go_on, put_back, settle_accounts, worker
from postlude import db, outbox
from sink import ACTIONS, CODES, SILENCE, SLOW, STEPS, TAKEN, Sink
from world import World

KINDS = ("marketing", "transactional")
PAGE = ROOT / "docs" / "delivery.md"


@pytest.fixture(scope="module")
def worlds(template: URL) -> Iterator[dict[int, World]]:
    """Worlds by the number of their messages; each story puts its world back first."""
    made: dict[int, World] = {}
    admin = create_engine(db._psycopg(template.set(database="postgres")), isolation_level="AUTOCOMMIT")
    for size in (2, 8):
        url = template.set(database=f"faults_{size}_{os.getpid()}")
        with admin.connect() as conn:
            conn.execute(text(f'create database "{url.database}" template "{template.database}"'))
        made[size] = batch(db.engine(url), size)
    yield made
    for world in made.values():
        world.engine.dispose()
        with admin.connect() as conn:
            conn.execute(text(f'drop database "{world.engine.url.database}" with (force)'))
    admin.dispose()


# ---------------------------------------------------------------- crash points


def crash(world: World, kind: str, last: int | None) -> tuple[list[str], str, str]:
    """Die at the `last`-th point, go on, settle accounts: the points passed, what the crash left, how it ended."""
    put_back(world, kind)
    with Sink() as sink:
        mortal = Mortal(last)
        with mortal.watching(world.engine), contextlib.suppress(Killed):
            worker(world, sink.url(), START, "first").deliver()
        assert mortal.dead == (last is not None)
        left = world.one(
            "select case when bool_or(state = 'sending' and handed_over_at is not null) then 'intent stored' "
            "when bool_or(state = 'sending') then 'claimed' when bool_or(state = 'scheduled') then 'scheduled' else 'settled' end "
            "from messages"
        )
        # a message that was taken and whose worker has not said so is still open
        sent = world.one("select count(*) from messages where state = 'sent'")
        left += ", taken" if len(sink.accepted) > sent else ""
        go_on(world, sink, rounds=3)
        account = settle_accounts(world, sink.ledger, lost_answers=1)
        total = sum(account.states.values())
        assert account.states["sent"] + account.states["unknown"] == total, account.states
        if account.unknown_copies:
            return mortal.points, left, f"unknown, {account.unknown_copies[0]}"
        return mortal.points, left, f"sent, {account.most_copies}"


def enumerate_crashes(world: World, each_name_once: bool) -> dict[str, dict[str, set[str]]]:
    """Every point of one batch (or the first of each name), for both kinds: {point: {"left" | kind: outcomes}}."""
    table: dict[str, dict[str, set[str]]] = {}
    for kind in reversed(KINDS):  # a transactional message passes all the points
        points, _, end = crash(world, kind, None)
        assert end == "sent, 1"
        for last in range(1, len(points) + 1):
            if each_name_once and points[last - 1] in points[: last - 1]:
                continue
            passed, left, end = crash(world, kind, last)
            row = table.setdefault(passed[-1], {name: set() for name in ("left", *KINDS)})
            row["left"].add(left)
            row[kind].add(end)
    return table


def as_markdown(table: dict[str, dict[str, set[str]]]) -> str:
    lines = [
        "| the worker dies | it leaves | marketing ends, copies | transactional ends, copies |",
        "|---|---|---|---|",
    ]
    for point, row in table.items():
        cells = ("<br>".join(sorted(row[name])) or "-" for name in ("left", *KINDS))
        lines.append(f"| {point} | {' | '.join(cells)} |")
    return "\n".join(lines)


def test_a_worker_that_dies_at_any_point_sends_nothing_twice_and_loses_nothing(worlds: dict[int, World]) -> None:
    table = as_markdown(enumerate_crashes(worlds[2], each_name_once=True))
    before, mark, after = PAGE.read_text(encoding="utf-8").partition("<!-- crash points -->\n")
    assert mark, "docs/delivery.md has no place for the table"
    shown, mark, after = after.partition("\n<!-- end -->")
    if os.environ.get("POSTLUDE_WRITE_DOCS"):
        PAGE.write_text(f"{before}<!-- crash points -->\n{table}\n<!-- end -->{after}", encoding="utf-8")
    else:
        assert shown == table, "the hand-over has other crash points now: see the docstring of this file"


@pytest.mark.slow
def test_every_crash_point_of_a_batch_of_eight(worlds: dict[int, World]) -> None:
    table = enumerate_crashes(worlds[8], each_name_once=False)
    assert {"after the final dot is written", "before the final dot is written"} <= table.keys()
    assert table["after the final dot is written"]["marketing"] <= {"unknown, 0", "unknown, 1"}


# ---------------------------------------------------------------- the matrix of faults

# a relay that says no and has stored the message, or yes and has not, lies: nobody can defend against that
LIES = {"dot-after-store": CODES.keys(), "dot-before-store": {*TAKEN, *SLOW}}
MATRIX = [(step, action) for step in STEPS for action in ACTIONS if action not in LIES.get(step, ())]
CORE = [
    ("banner", "554"), ("mail", "close"), ("rcpt", "550"), ("rcpt", "451"), ("body", "reset"), ("dot-before-store", "452"),
    ("dot-before-store", "554"), ("dot-before-store", "close"), ("dot-after-store", "close"), ("dot-after-store", "half reply"),
    ("dot-after-store", "9 kB line"), ("dot-after-store", "252"), ("quit", "421"),
]  # fmt: skip


def suffer(world: World, kind: str, step: str, action: str, times: int = 1) -> None:
    put_back(world, kind)
    with Sink(faults=[(step, action)], times=times) as sink:
        query = "timeout=2&timeout_quit=0.2&timeout_dot=0.3&timeout_command=0.3&timeout_data=0.3&timeout_banner=0.3"
        worker(world, sink.url(query), START).deliver()
        go_on(world, sink, query=query)
        unreadable = sum(1 for entry in sink.ledger if not entry.accepted or not entry.replied.endswith(b"\r\n")
                         or len(entry.replied) > 512 or entry.replied[:1] != b"2")  # fmt: skip
        # a relay that stops reading in the middle of the body may get the dot all the same
        unreadable += times if step == "body" and action in SILENCE else 0
        account = settle_accounts(world, sink.ledger, lost_answers=unreadable)
        # the fault was used up: whatever did not blame a message itself has gone
        assert account.states["sent"] >= len(account.copies) - times, account.states


@pytest.mark.parametrize("kind", KINDS)
def test_a_relay_that_fails_at_one_step(worlds: dict[int, World], kind: str) -> None:
    for step, action in CORE:
        try:
            suffer(worlds[2], kind, step, action)
        except AssertionError as error:
            raise AssertionError(f"{action} at {step}: {error}") from error


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("step", "action"), MATRIX)
def test_every_fault_at_every_step(worlds: dict[int, World], kind: str, step: str, action: str) -> None:
    suffer(worlds[2], kind, step, action)


def test_a_lost_answer_of_a_transactional_message_is_followed_by_the_same_bytes_at_most_twice(
    worlds: dict[int, World],
) -> None:
    world = worlds[2]
    put_back(world, "transactional")
    world.do("update messages set state = 'skipped', reason = 'no_window', finalized_at = now() where message_id = "
             "(select max(message_id::text)::uuid from messages)")  # fmt: skip
    with Sink(faults=[("dot-after-store", "close")], times=9) as sink:
        worker(world, sink.url(), START).deliver()
        # not before ten minutes have passed
        go_on(world, sink, START + timedelta(minutes=8), rounds=1)
        assert len(sink.accepted) == 1
        world.do("update products set name = 'another name'")  # what would be written now is not what was written then
        go_on(world, sink)
        account = settle_accounts(world, sink.ledger)
    assert account.states == {"unknown": 1, "skipped": 1} and account.most_copies == 3
    assert world.one("select count(*) from kept_letters") == 0  # no longer needed


def test_a_report_that_comes_within_ten_minutes_prevents_the_second_copy(worlds: dict[int, World]) -> None:
    world = worlds[2]
    put_back(world, "transactional")
    with Sink(faults=[("dot-after-store", "close")], times=1) as sink:
        worker(world, sink.url(), START).deliver()
        lost = world.one("select message_id from messages where state = 'unknown'")
        world.do("insert into event_inbox (received_at, source, dedupe_key, payload) values (:at, 'smtp', 'k1', :payload)",
                 at=START, payload=db.dumps({"kind": "delivered", "message_id": str(lost), "at": START}))  # fmt: skip
        # it has landed, but nobody has read it yet
        assert outbox.send_again(world.engine, START + timedelta(minutes=11)) == {"sent_again": 0, "proven": 0}
        world.feedback("2026-06-01 12:12")
        go_on(world, sink, START + timedelta(minutes=12))
        account = settle_accounts_proven(world, sink)
    world.do("delete from event_inbox")
    world.do("delete from events")
    assert account == {"sent": 2}


def settle_accounts_proven(world: World, sink: Sink) -> dict[str, int]:
    assert len(sink.accepted) == len({entry.message_id for entry in sink.accepted}) == 2
    return dict(world.do("select state, count(*) from messages group by state"))  # type: ignore[arg-type]


def test_a_refused_second_hand_over_leaves_it_unknown_for_the_first_may_have_arrived(worlds: dict[int, World]) -> None:
    world = worlds[2]
    put_back(world, "transactional")
    with Sink(faults=[("dot-after-store", "close")]) as sink:
        worker(world, sink.url(), START).deliver()
        sink.replies["rcpt"] = b"550 5.1.1 no such user\r\n"
        go_on(world, sink, rounds=3)
    assert sorted(world.do("select state, reason from messages")) == [("sent", None), ("unknown", "answer_lost")]
    assert world.one("select detail from messages where state = 'unknown'").startswith(
        "not handed over again: refused_recipient"
    )
