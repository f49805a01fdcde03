"""Several connections per worker, a relay that is down, and providers that want it slower."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine

from postlude import db, outbox, pace
from postlude.channels import smtp
from postlude.ledger import Ledger
from postlude.message import Message, Outcome
from postlude.settings import settings
from sink import Sink
from world import World, at, campaign

NOW = at("2026-06-01 09:30")
LANES = 6


@pytest.fixture
def world(engine: Engine) -> World:
    return World(engine)


def crowd(world: World, count: int, domain: str = "customers.example") -> None:
    """So many people with one message due each."""
    if not world.one("select count(*) from messages"):
        lapsing = world.customer()
        world.order(lapsing, "2025-12-03 08:00")
        world.plan(campaign("win_back"), "2026-06-01 08:30")
    tag = domain[:3]
    world.do(
        "insert into customers (source_id, source_customer_id, email, first_name, known_at) "
        "select 'shop', :tag || n, :tag || n || '@' || :domain, 'Bo', '2020-01-01' from generate_series(1, :count) n",
        tag=tag, domain=domain, count=count,
    )  # fmt: skip
    world.do("insert into consents select customer_id, 'email', 'marketing', true, '2020-01-01', 'opt_in', '2020-01-01' "
             "from customers where source_customer_id like :tag || '%'", tag=tag)  # fmt: skip
    world.do("""insert into enrolments (enrolment_id, campaign_id, version, customer_id, anchor_key, anchor_at, watch_from,
                enrolled_at, run_id)
                select uuid_of('e', c.customer_id::text), e.campaign_id, e.version, c.customer_id, 'x', e.anchor_at, e.watch_from,
                       e.enrolled_at, 'test'
                from customers c cross join (select * from enrolments limit 1) e where c.source_customer_id like :tag || '%'""",
             tag=tag)  # fmt: skip
    world.do("""insert into messages (message_id, enrolment_id, campaign_id, step_id, customer_id, kind, template, due_at, send_at,
                expires_at, planned_at, run_id)
                select uuid_of('m', e.customer_id::text), e.enrolment_id, e.campaign_id, m.step_id, e.customer_id, m.kind, m.template,
                       m.due_at, m.send_at, m.expires_at, m.planned_at, 'test'
                from enrolments e join customers c using (customer_id)
                cross join (select * from messages where step_id = 'miss_you' limit 1) m
                where e.anchor_key = 'x' and c.source_customer_id like :tag || '%'""", tag=tag)  # fmt: skip


def worker(world: World, **more: Any) -> outbox.Outbox:
    given = {
        "engine": world.engine, "channel": world.post, "url": "", "campaigns": [campaign("win_back")], "calendar": world.calendar,
        "clock": lambda: NOW, "worker": "w1", "lanes": LANES, "batch": 50,
    }  # fmt: skip
    world.feed_complete_until(given["clock"]())  # type: ignore[operator]
    return outbox.Outbox(**(given | more))


def states(world: World) -> dict[str, int]:
    rows = world.do("select state, count(*) from messages where step_id = 'miss_you' group by 1")
    return {state: count for state, count in rows}


# ---------------------------------------------------------------- several connections


def test_several_connections_send_each_message_once_and_commit_in_groups(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    crowd(world, 300)
    groups: list[int] = []
    real = Ledger._write

    def write(self: Ledger, group: list[Any]) -> None:
        groups.append(len(group))
        real(self, group)

    monkeypatch.setattr(Ledger, "_write", write)
    with Sink() as sink:
        counts = worker(world, channel=smtp, url=sink.url()).deliver()
        assert counts == {"sent": 301}
        assert len({entry.message_id for entry in sink.accepted}) == len(sink.accepted) == 301
        assert len(sink.sessions) >= LANES
    assert states(world) == {"sent": 301}
    assert world.one("select count(*) from attempts where settled_at is not null and outcome = 'accepted'") == 301
    assert sum(groups) >= 602
    assert len([size for size in groups if size]) < 602 * 0.8


def test_every_intent_is_durable_before_its_dot_and_only_as_many_as_connections(world: World) -> None:
    crowd(world, 120)
    seen: list[tuple[int, int]] = []

    def answer(message: Message) -> Outcome:
        own = "select count(*) from messages where message_id = :id and handed_over_at is not null"
        waiting = """select count(*) from messages m where m.state = 'sending' and m.handed_over_at is not null
                     and not m.message_id = any(cast(:taken as uuid[]))"""
        taken = [message.message_id for message, _ in world.post.taken]
        seen.append((world.one(own, id=message.message_id), world.one(waiting, taken=taken)))
        return Outcome("accepted", reply="250 ok")

    world.post.answer = answer
    worker(world).deliver()
    assert {durable for durable, _ in seen} == {1}
    assert max(unsent for _, unsent in seen) <= LANES


def test_a_stop_lets_at_most_one_more_message_per_connection_out(world: World, tmp_path: Path) -> None:
    crowd(world, 200)
    file = tmp_path / "STOP"
    late: list[Message] = []
    thrown = threading.Event()

    def answer(message: Message) -> Outcome:
        if thrown.is_set():
            late.append(message)
        elif len(world.post.taken) >= 40:
            file.write_text("campaign win_back # by hand\n")
            thrown.set()
        return Outcome("accepted", reply="250 ok")

    world.post.answer = answer
    worker(world, stop_file=file).deliver()
    assert len(late) < LANES
    assert set(states(world)) == {"sent", "scheduled"}
    file.unlink()
    worker(world, stop_file=file).deliver()
    assert states(world) == {"sent": 201}
    assert len({message.message_id for message, _ in world.post.taken}) == len(world.post.taken) == 201


def test_a_worker_killed_with_several_connections_sends_nothing_twice_and_loses_nothing(world: World) -> None:
    class Killed(BaseException):
        pass

    crowd(world, 100)

    def answer(message: Message) -> Outcome:
        if len(world.post.taken) == 30:
            raise Killed
        return Outcome("accepted", reply="250 ok")

    world.post.answer = answer
    with pytest.raises(Killed):
        worker(world).deliver()
    taken = {message.message_id for message, _ in world.post.taken}
    outbox.recover(world.engine, NOW + timedelta(minutes=20))
    known = world.do("select message_id, state from messages where step_id = 'miss_you'")
    assert {state for id_, state in known if id_ in taken} <= {"sent", "unknown"}
    unknown = {id_ for id_, state in known if state == "unknown"}
    assert len(unknown - taken) <= LANES  # between intent and dot
    world.post.answer = None
    worker(world, clock=lambda: NOW + timedelta(minutes=25), worker="w2").deliver()
    assert len(world.post.taken) == len({message.message_id for message, _ in world.post.taken})
    assert states(world) == {"sent": 101 - len(unknown), "unknown": len(unknown)}


def test_a_database_that_drops_its_connections_in_the_middle_costs_no_message(world: World) -> None:
    crowd(world, 100)
    cut = threading.Event()

    def answer(message: Message) -> Outcome:
        if len(world.post.taken) == 20 and not cut.is_set():
            cut.set()
            # the kept one; those of the pool may be in the middle of a claim, whose end is the run's
            world.do("select pg_terminate_backend(pid) from pg_stat_activity where query like '%as w (message_id, attempt%' "
                     "and pid <> pg_backend_pid()")  # fmt: skip
        return Outcome("accepted", reply="250 ok")

    world.post.answer = answer
    worker(world, batch=200).deliver()
    assert cut.is_set()
    assert states(world) == {"sent": 101}
    assert len(world.post.taken) == 101


def test_one_message_the_database_refuses_does_not_take_its_group_along(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    crowd(world, 60)
    poison = world.one("select message_id from messages where step_id = 'miss_you' order by message_id limit 1")

    def answer(message: Message) -> Outcome:
        time.sleep(0.002)
        return Outcome("accepted", reply="a nul \0 in it" if message.message_id == poison else "250 ok")

    world.post.answer = answer
    with pytest.raises(Exception, match=r"(?i)unicode|nul|0x00|u0000"):
        worker(world).deliver()
    assert states(world)["sent"] >= 1
    assert world.one("select state from messages where message_id = :id", id=poison) == "sending"


# ---------------------------------------------------------------- a relay that is down


def test_a_relay_that_is_down_for_two_hours_is_tried_a_few_times_and_then_gets_everything(world: World) -> None:
    crowd(world, 40)
    tries: list[datetime] = []
    clock = [NOW]

    def down(message: Message) -> None:
        tries.append(clock[0])

    world.post.before_intent = down
    refuse = world.post._send
    world.post._send = lambda message, raw, intend: (  # type: ignore[method-assign]
        down(message) or Outcome("deferred", "relay", "connect: Connection refused")
    )
    before = world.do("select message_id, state, send_at from messages order by 1")
    for minute in range(120):
        clock[0] = NOW + timedelta(minutes=minute)
        counts = worker(world, clock=lambda: clock[0], lanes=1, worker=f"w{minute}").deliver()
        assert counts["relay_down"] == 1
    assert 5 <= len(tries) <= 12
    after = world.do("select message_id, state, attempt < max_attempts from messages where step_id = 'miss_you'")
    assert {(state, again) for _, state, again in after} == {("scheduled", True)}
    assert len(before) == world.one("select count(*) from messages")
    assert world.one("select count(*) from suppressions") == 0
    world.post._send, world.post.before_intent = refuse, None  # type: ignore[method-assign]
    worker(world, clock=lambda: NOW + timedelta(minutes=151), worker="w").deliver()
    assert states(world) == {"sent": 41}
    assert world.one("select count(*) from relay_breakers") == 0


def test_what_a_dead_relay_leaves_goes_back_in_one_transaction(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    crowd(world, 40)
    world.post.answer = lambda message: Outcome("deferred", "configuration", "535 5.7.8 wrong")
    settled: list[int] = []
    commit = db.Pipe.run

    def counting(pipe: db.Pipe, *statements: Any) -> Any:
        settled.extend(len(json.loads(values["rows"])) for name, values in statements if name == "45_settle")
        return commit(pipe, *statements)

    monkeypatch.setattr(db.Pipe, "run", counting)
    assert worker(world, lanes=1).deliver()["relay_down"] == 1
    assert len(settled) <= 2 and sum(settled) == 41
    assert states(world) == {"scheduled": 41}


def test_a_wrong_password_opens_the_breaker_at_once_and_one_worker_tries_for_all(world: World) -> None:
    crowd(world, 10)
    wrong = Outcome("deferred", "configuration", "535 5.7.8 wrong")
    tries: list[Message] = []
    world.post.answer = lambda message: tries.append(message) or wrong
    worker(world, lanes=1).deliver()
    assert len(tries) == 1
    for second in (0, 30, 59):
        worker(world, clock=lambda second=second: NOW + timedelta(seconds=second), lanes=1, worker="w2").deliver()
    assert len(tries) == 1
    start, posts = threading.Barrier(3), Counter[str]()

    def work(name: str) -> None:
        start.wait()
        posts.update(worker(world, clock=lambda: NOW + timedelta(seconds=70), worker=name).deliver())

    threads = [threading.Thread(target=work, args=(f"t{n}",)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(tries) == 2
    wait = world.one("select extract(epoch from wait) from relay_breakers")
    assert wait == 120


def test_one_connection_that_fails_does_not_end_the_run_of_the_others(world: World) -> None:
    crowd(world, 60)
    with Sink([("banner", "421")], times=2) as sink:
        counts = worker(world, channel=smtp, url=sink.url()).deliver()
    assert counts["sent"] == 59 and counts["scheduled:not_now"] == 2
    assert "relay_down" not in counts
    assert world.one("select count(*) from relay_breakers") == 0


# ---------------------------------------------------------------- providers


@pytest.mark.parametrize(
    ("address", "name"),
    [
        ("a@gmail.com", "gmail"),
        ("a@GoogleMail.com", "gmail"),
        ("a@hotmail.co.uk", "outlook"),
        ("a@live.com", "outlook"),
        ("a@yahoo.co.jp", "yahoo"),
        ("a@naver.com", "naver"),
        ("a@hanmail.net", "daum"),
        ("a@kakao.com", "daum"),
        ("a@shop.example", "shop.example"),
        (None, ""),
    ],
)
def test_the_domains_of_one_provider_are_one_family(address: str | None, name: str) -> None:
    assert pace.family(address) == name


def test_a_provider_with_a_limit_gets_no_more_in_any_minute_and_the_others_do_not_wait(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = settings().model_copy(update={"provider_rates": {"naver": 10}})
    monkeypatch.setattr(pace, "settings", lambda: limits)
    crowd(world, 35, "naver.com")
    crowd(world, 40)
    clock = [NOW]
    went: list[tuple[datetime, str]] = []

    def answer(message: Message) -> Outcome:
        went.append((clock[0], pace.family(message.recipient.address)))
        return Outcome("accepted", reply="250 ok")

    world.post.answer = answer
    for tick in range(0, 420, 20):
        clock[0] = NOW + timedelta(seconds=tick)
        for name in ("a", "b"):  # two workers share the limit
            worker(world, clock=lambda: clock[0], worker=f"{name}{tick}", lanes=3).deliver()
    at_naver = sorted(when for when, name in went if name == "naver")
    assert len([when for when, name in went if name != "naver" and when == NOW]) == 41
    assert len(at_naver) == 35
    for when in at_naver:
        assert len([other for other in at_naver if when <= other < when + timedelta(seconds=60)]) <= 10
    assert at_naver[-1] <= NOW + timedelta(minutes=6)
    assert world.one("select max(attempt) from messages") <= 8


def test_slow_down_halves_what_a_provider_may_have_and_success_adds_to_it(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits = settings().model_copy(update={"provider_rates": {"gmail": 40}})
    monkeypatch.setattr(pace, "settings", lambda: limits)
    clock = [NOW]
    own = pace.Pace(engine, "email", lambda: clock[0], connections=8)

    def at_once() -> int:
        count = 0
        while own.begin("gmail"):
            count += 1
        for _ in range(count):
            own.end("gmail")
        return count

    def a_minute(on: pace.Pace) -> int:
        clock[0] += timedelta(minutes=2)
        return next(count for count in range(100) if on.take("gmail"))

    assert (at_once(), a_minute(own)) == (8, 40)
    found = []
    for _ in range(4):
        own.slower("gmail")
        found.append(at_once())
    assert found == [4, 2, 1, 1]
    # another worker sees the rate: 40, 20, 10, 5, 2, and one more for each of the two minutes
    assert a_minute(pace.Pace(engine, "email", lambda: clock[0], connections=8)) == 4
    for _ in range(40):
        own.faster("gmail")
    assert at_once() == 8
    clock[0] += timedelta(hours=2)
    assert a_minute(own) == 40


def test_a_provider_that_says_slow_down_gets_one_connection_and_a_rest(world: World) -> None:
    crowd(world, 40, "daum.net")
    crowd(world, 40)
    slow = Outcome("deferred", "policy", "421 4.7.0 slow down", retry_after=timedelta(minutes=5))

    def answer(message: Message) -> Outcome:
        return slow if pace.family(message.recipient.address) == "daum" else Outcome("accepted", reply="250 ok")

    world.post.answer = answer
    with db.transaction(world.engine):
        counts = worker(world).deliver()
    assert counts["sent"] == 41
    assert counts["scheduled:provider_pace"] > 15
    assert counts["scheduled:not_now"] < 25
    world.post.answer = None
    worker(world, clock=lambda: NOW + timedelta(minutes=10), worker="w2").deliver()
    assert states(world) == {"sent": 81}
