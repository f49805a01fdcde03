"""Deliveries that go wrong on purpose: a batch of messages that can be put back, a death at any commit or socket write, and the
one account that every story ends with: what the sink really took against what the database says.
"""

from __future__ import annotations

from base64 import b32encode
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, event

from postlude import db, outbox
from postlude.channels import _smtp_client, smtp
from sink import Entry, Sink
from world import World, at, campaign, days

START = at("2026-06-01 12:00")
FINAL = ("sent", "failed", "cancelled", "skipped", "expired")


def batch(engine: Engine, size: int = 8) -> World:
    """A world with `size` messages due at START, each of a customer of its own."""
    world = World(engine)
    for _ in range(size):
        world.order(world.customer(), "2026-04-28 08:00", delivered="2026-05-02 09:00")
    world.plan(campaign("feedback_30d"), "2026-06-01 08:00")
    assert world.states() == [("ask", "scheduled", None)] * size
    return world


def put_back(world: World, kind: str) -> None:
    """As if nothing had been delivered yet; all messages are of this kind."""
    world.do("delete from attempts")
    world.do("delete from kept_letters")
    world.do("delete from suppressions")
    world.do(
        "update messages set kind = :kind, state = 'scheduled', attempt = 0, max_attempts = 5, claimed_by = null, claimed_at = null, "
        "handed_over_at = null, finalized_at = null, reason = null, detail = null, send_at = due_at, provider_id = null, "
        "content_hash = null, lost_answers = 0, resend_at = null, quota_day = null",
        kind=kind,
    )


def worker(world: World, url: str, now: datetime, name: str = "w1", **more: Any) -> outbox.Outbox:
    world.feed_complete_until(now)
    return outbox.Outbox(
        engine=world.engine, channel=smtp, url=url, campaigns=[campaign("feedback_30d")], calendar=world.calendar,
        clock=lambda: now, worker=name, **more,
    )  # fmt: skip


def go_on(world: World, sink: Sink, first: datetime = START, rounds: int = 8, query: str = "timeout=5") -> None:
    """The next runs of `deliver`, as they come: recovery, what is due again, hand-over."""
    # the waits of a relay that was down, of a greylister, of a full mailbox; every window of the day after is tried as well
    for number, after in enumerate((1, 16, 32, 60, 150, 600, 1500, 3000)[:rounds]):
        now = first + timedelta(minutes=after)
        outbox.recover(world.engine, now)
        outbox.send_again(world.engine, now)
        worker(world, sink.url(query), now, f"later{number}").deliver()


# ---------------------------------------------------------------- the account


@dataclass
class Account:
    """What became of all messages."""

    states: Counter[str] = field(default_factory=Counter)
    copies: dict[Any, int] = field(default_factory=dict)  # by message
    unknown_copies: list[int] = field(default_factory=list)

    @property
    def most_copies(self) -> int:
        return max(self.copies.values(), default=0)


def settle_accounts(world: World, taken: Iterable[Entry], lost_answers: int | None = None) -> Account:
    """Compare the relay's own ledger with the database; every story ends here.

    lost_answers: so many answers can have been lost at most; so many marketing messages may be unknown, no more.
    """
    accepted = [entry for entry in taken if entry.accepted]
    by_name: dict[str, list[Entry]] = {}
    for entry in accepted:
        by_name.setdefault(entry.message_id.partition("@")[0], []).append(entry)
    rows = world.do(
        "select m.message_id, m.kind, m.state, m.reason, m.content_hash, m.attempt, m.finalized_at, "
        "count(a.*) as attempts, count(*) filter (where a.handed_over_at is not null) as intents, "
        "count(*) filter (where a.outcome = 'ambiguous') as lost, count(*) filter (where a.outcome = 'accepted') as accepted, "
        "count(*) filter (where a.settled_at is null and a.message_id is not null) as open "
        "from messages as m left join attempts as a on m.message_id = a.message_id group by m.message_id"
    )
    account = Account()
    for row in rows:
        copies = by_name.pop(b32encode(row.message_id.bytes).decode().rstrip("=").lower(), [])
        story = (
            f"{row.kind} {row.state}:{row.reason}, {len(copies)} copies, {row.lost} answers lost, attempt {row.attempt}"
        )
        account.states[row.state] += 1
        account.copies[row.message_id] = len(copies)
        assert row.state in (*FINAL, "unknown"), f"neither final nor unknown: {story}"
        assert row.state == "sent" or row.reason, f"no reason: {story}"
        assert row.attempts == row.attempt, f"attempts do not add up: {story}"
        assert row.open == 0, f"an attempt nobody settled: {story}"
        assert len(copies) <= (1 if row.kind == "marketing" else 1 + row.lost), f"too many copies: {story}"
        assert len(copies) <= min(row.intents, 3), f"a copy without an intent: {story}"
        assert len({copy.sha256 for copy in copies}) <= 1, f"copies differ: {story}"
        if copies:
            assert row.state in ("sent", "unknown"), f"taken, yet recorded otherwise: {story}"
        if row.state == "sent":
            assert copies and row.accepted, f"sent, yet never taken: {story}"
            assert row.content_hash == copies[0].sha256, f"not the bytes we noted: {story}"
        if row.state == "unknown":
            assert row.lost, f"unknown without a lost answer: {story}"
            account.unknown_copies.append(len(copies))
            assert row.kind == "marketing" or row.lost >= 3, f"a transactional message given up too early: {story}"
    assert not by_name, f"mail that belongs to no message: {sorted(by_name)}"
    assert account.states.total() == len(rows)
    if lost_answers is not None:
        assert account.states["unknown"] <= lost_answers, account.states
    assert world.one("select count(*) from messages where state = 'sending'") == 0
    return account


# ---------------------------------------------------------------- dying


class Killed(BaseException):
    """The process is gone at this point."""


class Mortal:
    """Dies at the `last`-th point (None: lives), where points lie before and after every commit and every socket write.

    It watches the engine's own commits and the channel's own writes, so no code under test knows of it. Once dead, nothing is
    committed or written any more.
    """

    def __init__(self, last: int | None = None) -> None:
        self.last, self.points, self.dead = last, list[str](), False
        self._doing: dict[int, list[str]] = {}  # the statements of each database connection's transaction
        # reading leaves nothing behind: dying there is dying after the commit before it
        writing = ("42_claim",)
        self._named = {id(db.sql(name)): name for name in writing}

    def point(self, name: str) -> None:
        if self.dead:
            raise Killed(name)
        self.points.append(name)
        if self.last == len(self.points):
            self.dead = True
            raise Killed(name)

    @contextmanager
    def watching(self, engine: Engine) -> Iterator[None]:
        commit, push = engine.dialect.do_commit, _smtp_client.Connection.push

        def do_commit(connection: Any) -> None:
            what = " and ".join(dict.fromkeys(self._doing.pop(id(connection.dbapi_connection), [])))
            if not what:
                commit(connection)
                return
            self.point(f"before the commit of {what}")
            commit(connection)
            self.point(f"after the commit of {what}")

        def note(conn: Any, cursor: Any, statement: str, parameters: Any, context: Any, many: bool) -> None:
            name = self._named.get(id(getattr(context.compiled, "statement", None))) if context else None
            if name:
                self._doing.setdefault(id(conn.connection.dbapi_connection), []).append(name)

        piped = db.Pipe.run

        def in_one(pipe: db.Pipe, *statements: tuple[str, dict[str, Any]]) -> Any:
            what = " and ".join(name for name, _ in statements)
            self.point(f"before the commit of {what}")
            rows = piped(pipe, *statements)
            self.point(f"after the commit of {what}")
            return rows

        def writing(link: _smtp_client.Connection, data: bytes) -> bytes:
            name = _line(data)
            self.point(f"before {name} is written")
            left = push(link, data)
            self.point(f"after {name} is written")
            return left

        event.listen(engine, "before_cursor_execute", note)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(engine.dialect, "do_commit", do_commit)
            patch.setattr(db.Pipe, "run", in_one)
            patch.setattr(_smtp_client.Connection, "push", writing)
            try:
                yield
            finally:
                event.remove(engine, "before_cursor_execute", note)


def _line(data: bytes) -> str:
    if data == b".\r\n":
        return "the final dot"
    word = data.split(b" ")[0].strip().upper().decode("ascii", "replace")
    return word if word in ("EHLO", "MAIL", "QUIT", "RSET") else "the body"


__all__ = ["START", "Account", "Killed", "Mortal", "batch", "days", "go_on", "put_back", "settle_accounts", "worker"]
