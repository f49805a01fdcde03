"""Daily quotas and warm-up plans: shared over campaigns by priority, exact with several workers, and never a silent loss."""

from __future__ import annotations

import json
import threading
from collections import Counter
from datetime import date, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine
from typer.testing import CliRunner

from faulty import START, put_back, settle_accounts, worker
from postlude import cli, db, quotas
from postlude.errors import InputError
from postlude.quotas import Quotas, load_quotas, used
from sink import Sink
from world import INCLUDE, World, at, campaign

DAY = timedelta(days=1)


def shop(engine: Engine, **people: int) -> World:
    """A world with so many due messages to each provider: gmail=5, naver=2."""
    world = World(engine)
    for provider, count in people.items():
        domains = {"gmail": ("gmail.com", "googlemail.com"), "naver": ("naver.com",)}.get(provider, ("mail.example",))
        for number in range(count):
            customer = world.customer(email=f"{provider}{number}@{domains[number % len(domains)]}")
            world.order(customer, "2026-04-28 08:00", delivered="2026-05-02 09:00")
    world.plan(campaign("feedback_30d"), "2026-06-01 08:00")
    return world


def plan(*rules: dict[str, object], zone: str = "UTC") -> Quotas:
    return Quotas.model_validate({"zone": zone, "quotas": rules})


def went(sink: Sink) -> Counter[str]:
    """Accepted copies by provider."""
    return Counter(
        line.split(b"<")[1].split(b"@")[0].rstrip(b"0123456789").decode() for line in sink.lines if line[:4] == b"RCPT"
    )


def test_a_warm_up_plan_says_how_many_may_go_on_each_of_its_days() -> None:
    warm = plan({"provider": "gmail", "starts": "2026-06-01", "days": {1: 50, 2: 100, 5: 1000, 8: "no limit"}}).quotas[
        0
    ]
    assert [warm.on(date(2026, 5, 31) + n * DAY) for n in range(9)] == [None, 50, 100, 100, 100, 1000, 1000, 1000, None]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("quotas: [{provider: gmail}]", '1: quotas[0]: name either "most"'),
        ("quotas: [{provider: gmail, starts: 2026-06-01, days: {2: 5}}]", "days has no day 1"),
        ("zone: Berlin", "is no time zone"),
        ("quotas: [{provider: gmail, starts: soon, days: {1: 5}}]", '"soon" is not a date'),
    ],
)
def test_a_fault_of_the_file_is_told_by_line(tmp_path: Path, text: str, said: str) -> None:
    path = tmp_path / "warmup.yml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        load_quotas(path)
    assert said in str(caught.value)


def test_the_shipped_file_limits_nothing() -> None:
    assert load_quotas(INCLUDE / "warmup.yml").quotas == ()


def test_who_does_not_fit_goes_on_the_next_day_and_keeps_its_tries(engine: Engine) -> None:
    world = shop(engine, gmail=5, naver=3, others=2)
    limits = plan({"provider": "gmail", "starts": "2026-06-01", "days": {1: 2, 2: 3}}, {"provider": "naver", "most": 1})
    with Sink() as sink:
        worker(world, sink.url(), START, quotas=limits).deliver()
        assert went(sink) == {"gmail": 2, "naver": 1, "others": 2}
        waiting = world.do(
            "select reason, detail, attempt, send_at from messages where state = 'scheduled' order by detail"
        )
        assert [tuple(row) for row in waiting] == [("quota", "gmail", 0, at("2026-06-02"))] * 3 + [
            ("quota", "naver", 0, at("2026-06-02"))
        ] * 2
        with db.transaction(engine) as conn:
            assert used(conn, limits, START) == [
                {"channel": "email", "provider": "gmail", "most": 2, "used": 2, "left": 0, "put off": 3},
                {"channel": "email", "provider": "naver", "most": 1, "used": 1, "left": 0, "put off": 2},
            ]
        worker(world, sink.url(), START + timedelta(hours=1), quotas=limits).deliver()
        assert went(sink).total() == 5  # nobody more on this day
        worker(world, sink.url(), START + DAY, quotas=limits).deliver()
        assert went(sink) == {"gmail": 5, "naver": 2, "others": 2}
        for day in range(2, 5):
            worker(world, sink.url(), START + day * DAY, quotas=limits).deliver()
        assert settle_accounts(world, sink.ledger, lost_answers=0).states == {"sent": 10}


def test_places_go_to_the_highest_priority_over_all_campaigns_and_transactional_mail_always_goes(
    engine: Engine,
) -> None:
    world = shop(engine, gmail=6)
    # what is due first is not what goes first
    world.do("update messages set priority = 7")
    world.do("update messages set priority = 2 where message_id in (select message_id from messages order by send_at desc, "
             "message_id desc limit 2)")  # fmt: skip
    world.do("update messages set kind = 'transactional' where message_id in (select message_id from messages where priority = 7 "
             "order by message_id limit 3)")  # fmt: skip
    limits = plan({"provider": "all", "most": 4})
    with Sink() as sink:
        worker(world, sink.url(), START, quotas=limits, batch=1).deliver()
    sent = world.do("select kind, priority, count(*) from messages where state = 'sent' group by 1, 2 order by 1, 2")
    # claimed one by one: first priority 2, then 7, of which only what is transactional may pass the full quota
    assert [tuple(row) for row in sent][:1] == [("marketing", 2, 2)]
    assert ("transactional", 7, 3) in [tuple(row) for row in sent]
    assert world.one("select used from quota_use where provider = 'all'") >= 4


def test_a_message_that_waits_too_long_for_a_place_expires_with_that_reason(engine: Engine) -> None:
    world = shop(engine, gmail=2)
    limits = plan({"provider": "gmail", "most": 0})
    expires = world.one("select max(expires_at) from messages")
    with Sink() as sink:
        now = START
        while now <= expires + DAY:
            worker(world, sink.url(), now, quotas=limits).deliver()
            assert world.one("select count(*) from messages where send_at > expires_at") == 0
            now += DAY
        assert sink.accepted == []
    assert {row[1:] for row in world.states()} == {("expired", "quota")}


def test_a_second_try_on_the_same_day_takes_no_second_place(engine: Engine) -> None:
    world = shop(engine, gmail=2)
    limits = plan({"provider": "gmail", "most": 1})
    with Sink(faults=[("rcpt", "451")]) as sink:
        for minutes in (0, 30):
            worker(world, sink.url(), START + timedelta(minutes=minutes), quotas=limits).deliver()
        assert len(sink.accepted) == 1
    assert sorted(state for _, state, _ in world.states()) == ["scheduled", "sent"]


def test_six_workers_at_once_keep_to_the_quota_exactly(engine: Engine) -> None:
    world = shop(engine, gmail=30, naver=10)
    world.feed_complete_until(START)
    limits = plan({"provider": "gmail", "most": 7}, {"provider": "others", "most": 4}, {"provider": "all", "most": 10})
    for _ in range(2):
        put_back(world, "marketing")
        world.do("delete from quota_use")
        with Sink() as sink:
            boxes = [worker(world, sink.url(), START, f"w{n}", batch=3, quotas=limits) for n in range(6)]
            threads = [threading.Thread(target=box.deliver) for box in boxes]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(60)
            assert len(sink.accepted) == 10
            assert went(sink)["gmail"] <= 7 and went(sink)["naver"] <= 4
        assert world.one("select used from quota_use where provider = 'all'") == 10
        assert (
            world.one("select count(*) from messages where state = 'scheduled' and reason = 'quota' and attempt = 0")
            == 30
        )


def test_the_command_shows_what_is_left(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    world = shop(engine, gmail=3)
    limits = plan({"provider": "gmail", "most": 2})
    with Sink() as sink:
        worker(world, sink.url(), START, quotas=limits).deliver()
    monkeypatch.setattr(cli, "_ready", lambda: None)
    monkeypatch.setattr(db, "default_engine", lambda: engine)
    monkeypatch.setattr(quotas, "load_quotas", lambda: limits)
    result = CliRunner().invoke(cli.app, ["quotas", "--as-of", "2026-06-01T12:00", "--json"], catch_exceptions=False)
    assert json.loads(result.output)["quotas"] == [
        {"channel": "email", "provider": "gmail", "most": 2, "used": 2, "left": 0, "put off": 1}
    ]
