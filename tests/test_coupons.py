"""Coupons: one code for one message, whoever works at the same time; given back when the message does not go."""

from __future__ import annotations

import json
import re
import threading
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine
from typer.testing import CliRunner

from postlude import coupons, db, outbox, pipeline, report
from postlude.cli_coupons import app
from postlude.errors import InputError
from postlude.message import Outcome
from postlude.tokens import CODE_ALPHABET
from world import Post, World, at, campaign

JOINED = "2026-03-01 09:00"
IMPORTED = {"kind": "imported", "low_at": 3}


@pytest.fixture
def world(engine: Engine) -> World:
    return World(engine)


def loyal(world: World, people: int = 1, **more: Any) -> list[int]:
    """Customers whose third order was just placed: they are invited to the club, with a coupon."""
    found = []
    for _ in range(people):
        ana = world.customer(**more)
        for day in ("2026-01-10", "2026-02-10", "2026-03-01"):
            world.order(ana, day)
        found.append(ana)
    return found


def declare(world: World, name: str = "club", **pool: Any) -> None:
    with db.transaction(world.engine) as conn:
        coupons.declare(conn, {name: coupons.Pool(**pool)}, at("2026-01-01"))


def stock_up(world: World, codes: int, pool: str = "club", until: datetime | None = None, prefix: str = "SHOP") -> None:
    world.do("insert into coupons (pool, code, state, valid_until, created_at) "
             "select :pool, :prefix || n, 'free', :until, '2026-01-01' from generate_series(1, :n) as n",
             pool=pool, prefix=prefix, until=until, n=codes)  # fmt: skip


def plan(world: World, now: str = JOINED) -> dict[str, Any]:
    """As pipeline.schedule does: plan, reserve, release."""
    invite = campaign("loyalty_join")
    counts = world.plan(invite, now, release=False)
    with db.transaction(world.engine) as conn:
        counts |= coupons.reserve(conn, invite, at(now))
    world.do("update messages set state = 'scheduled', reason = null where reason = 'awaiting_check'")
    return counts


def wake(world: World, now: str) -> dict[str, int]:
    with db.transaction(world.engine) as conn:
        return coupons.wake(conn, at(now))


def codes(world: World) -> dict[str, int]:
    return dict(world.do("select state, count(*) from coupons group by 1"))


def body(world: World, at_: int = 0) -> str:
    return world.post.taken[at_][0].text


# ---------------------------------------------------------------- one message, one code


def test_a_made_code_is_reserved_at_planning_and_bound_when_the_mail_leaves(world: World) -> None:
    loyal(world)
    assert plan(world)["coupons_reserved"] == 1
    assert codes(world) == {"reserved": 1}
    assert world.one("select code from coupons") is None
    world.deliver(campaign("loyalty_join"), now="2026-03-01 12:00")
    (code, state, message), *_ = world.do("select code, state, message_id from coupons")
    assert state == "bound"
    assert set(code) <= set(CODE_ALPHABET)
    assert code in body(world)
    assert world.do("select message_id, coupon_code, state from messages") == [(message, code, "sent")]


def test_an_imported_code_reaches_the_customer_and_no_other_one_is_made_up(world: World) -> None:
    declare(world, **IMPORTED)
    stock_up(world, 5, until=at("2026-03-20"))
    loyal(world)
    plan(world)
    world.deliver(campaign("loyalty_join"), now="2026-03-01 12:00")
    assert world.one("select coupon_code from messages") == "SHOP1"
    assert "SHOP1" in body(world)
    assert "March 20" in body(world)  # the code's own end, earlier than the 30 days of the campaign
    assert codes(world) == {"free": 4, "bound": 1}


def test_a_second_plan_reserves_nothing_more(world: World) -> None:
    declare(world, **IMPORTED)
    stock_up(world, 5)
    loyal(world, 2)
    plan(world)
    assert plan(world, "2026-03-01 10:00")["coupons_reserved"] == 0
    assert codes(world) == {"free": 3, "reserved": 2}


def test_ten_codes_for_twenty_messages_send_ten_and_hold_ten_until_more_come(
    world: World, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    declare(world, **IMPORTED)
    stock_up(world, 10)
    loyal(world, 20)
    counts = plan(world)
    assert (counts["coupons_reserved"], counts["coupons_short"]) == (10, 10)
    assert "coupon pool club: 0 codes left (alarm below 3)" in caplog.text
    sent = world.deliver(campaign("loyalty_join"), now="2026-03-01 12:00")
    assert (sent["sent"], sent["held:coupon_exhausted"]) == (10, 10)
    assert len({raw for _, raw in world.post.taken}) == 10
    assert world.one("select count(distinct coupon_code) from messages where state = 'sent'") == 10
    assert world.deliver(campaign("loyalty_join"), now="2026-03-01 13:00") == {}
    with db.transaction(world.engine) as conn:
        (row,) = coupons.stock(conn, at("2026-03-01 13:00"))
    assert (row["left"], row["waiting"], row["low"]) == (0, 10, True)
    with db.transaction(world.engine) as conn:
        path, figures = report.write(conn, at("2026-03-01 13:00"), tmp_path)
    assert figures["coupon_pools_low"] == 1
    assert '<span class="bad">low</span>' in path.read_text()

    stock_up(world, 4, prefix="MORE")
    assert wake(world, "2026-03-01 14:00") == {"coupon_woken": 4, "coupon_expired": 0}
    assert world.deliver(campaign("loyalty_join"), now="2026-03-01 14:00")["sent"] == 4
    assert wake(world, "2026-03-09") == {"coupon_woken": 0, "coupon_expired": 6}
    assert world.do("select distinct reason from messages where state = 'expired'") == [("coupon_exhausted",)]


def test_a_lost_answer_keeps_its_code(world: World) -> None:
    declare(world, **IMPORTED)
    stock_up(world, 2)
    loyal(world)
    plan(world)
    world.post.answer = lambda message: Outcome("ambiguous", reply="connection lost")
    world.deliver(campaign("loyalty_join"), now="2026-03-01 12:00")
    assert world.do("select m.state, k.state from messages as m join coupons as k using (message_id)") == [
        ("unknown", "bound")
    ]


def test_not_now_keeps_the_code_for_the_next_try(world: World) -> None:
    declare(world, **IMPORTED)
    stock_up(world, 2)
    loyal(world)
    plan(world)
    world.post.answer = lambda message: Outcome("deferred", reply="451", scope="policy")
    world.deliver(campaign("loyalty_join"), now="2026-03-01 12:00")
    world.post.answer = None
    world.deliver(campaign("loyalty_join"), now="2026-03-01 13:00")
    assert world.do("select state, coupon_code from messages") == [("sent", "SHOP1")]
    assert codes(world) == {"free": 1, "bound": 1}


def test_a_mail_refused_for_good_withdraws_the_code_it_carried(world: World) -> None:
    declare(world, **IMPORTED)
    stock_up(world, 2)
    loyal(world)
    plan(world)
    world.post.answer = lambda message: Outcome("refused", reply="554", scope="message")
    world.deliver(campaign("loyalty_join"), now="2026-03-01 12:00")
    assert world.states() == [("invite", "failed", "refused_message")]
    assert codes(world) == {"free": 1, "released": 1}


@pytest.mark.parametrize(
    ("change", "when", "state"),
    [
        ("insert into tickets values ('shop', 't', :c, '2026-03-01 10:00', null)", "2026-03-01 12:00", "skipped"),
        ("insert into suppressions (address, scope, reason, since) select address, 'all', 'manual', '2026-03-01' from customers "
         "where customer_id = :c", "2026-03-01 12:00", "skipped"),
        ("select :c", "2026-03-20 12:00", "expired"),
        ("update messages set state = 'cancelled', reason = 'by hand', finalized_at = now() where customer_id = :c",
         "2026-03-01 12:00", "cancelled"),
    ],
)  # fmt: skip
def test_whatever_ends_the_message_frees_its_code(world: World, change: str, when: str, state: str) -> None:
    declare(world, **IMPORTED)
    stock_up(world, 1)
    (ana,) = loyal(world)
    plan(world)
    assert codes(world) == {"reserved": 1}
    world.do(change, c=ana)
    world.deliver(campaign("loyalty_join"), now=when)
    assert world.states()[0][1] == state
    assert world.do("select state, message_id from coupons") == [("free", None)]
    assert world.post.taken == []


def test_a_made_code_of_a_message_that_ended_gives_its_budget_back(world: World) -> None:
    declare(world, kind="generated", budget={"most_codes": 1, "per": "month"})
    loyal(world, 2)
    assert plan(world)["coupons_short"] == 1
    first = world.one("select customer_id from messages join coupons using (message_id)")
    world.do(
        "update messages set state = 'cancelled', reason = 'by hand', finalized_at = now() where customer_id = :c",
        c=first,
    )
    assert plan(world, "2026-03-01 10:00")["coupons_reserved"] == 1
    assert codes(world) == {"released": 1, "reserved": 1}


@pytest.mark.parametrize(
    ("pool", "stock", "told"),
    [
        ({"kind": "imported", "low_at": 9}, 10, "7 codes left (alarm below 9), 0 messages wait for one; postlude coupons import"),
        ({"kind": "imported", "low_at": 7}, 10, None),
        ({"kind": "imported", "low_at": 9, "budget": {"most_codes": 11, "per": "month"}}, 90, "8 codes left (alarm below 9)"),
        ({"kind": "generated", "low_at": 9, "budget": {"most_codes": 11, "per": "month"}}, 0,
         "8 codes left (alarm below 9), 0 messages wait for one; raise its budget in include/coupons.yml"),
        ({"kind": "generated", "low_at": 9, "worth": 10, "budget": {"most_value": 111, "per": "month"}}, 0, "8 codes left (alarm below 9)"),
        ({"kind": "generated", "low_at": 9, "budget": {"most_codes": 12, "per": "month"}}, 0, None),
        ({"kind": "generated", "low_at": 0, "budget": {"most_codes": 2, "per": "month"}}, 0, "0 codes left (alarm below 0), 1 message"),
    ],
)  # fmt: skip
def test_a_pool_that_runs_low_by_stock_or_budget_raises_the_alarm(
    world: World, monkeypatch: pytest.MonkeyPatch, pool: dict[str, Any], stock: int, told: str | None
) -> None:
    monkeypatch.setattr(db, "default_engine", lambda: world.engine)
    declare(world, **pool)
    stock_up(world, stock)
    loyal(world, 3)
    plan(world)
    world.deliver(campaign("loyalty_join"), now="2026-03-01 12:00")
    if told is None:
        assert pipeline.watch_coupons(at("2026-03-02 03:30"), "night", "test") == {"coupon_alarms": 0}
        return
    with pytest.raises(InputError, match=re.escape(f"coupon pool club: {told}")):
        pipeline.watch_coupons(at("2026-03-02 03:30"), "night", "test")
    assert world.do("select stage, outcome from runs where stage = 'watch_coupons'") == [("watch_coupons", "stopped")]
    # the budget of the next month is a new one, and nobody waits for a code any more
    if "budget" in pool and pool["low_at"]:
        assert pipeline.watch_coupons(at("2026-04-02 03:30"), "month", "test") == {"coupon_alarms": 0}


# ---------------------------------------------------------------- concurrency


def test_four_workers_with_a_hundred_messages_each_hand_out_four_hundred_different_codes(world: World) -> None:
    """No reservation at planning: all of them draw from the pool at hand-over, at the same time."""
    declare(world, **IMPORTED)
    stock_up(world, 400)
    loyal(world, 400)
    invite = campaign("loyalty_join")
    world.plan(invite, JOINED)
    assert codes(world) == {"free": 400}
    start, posts, faults = threading.Barrier(4), [Post() for _ in range(4)], []

    def work(number: int) -> None:
        box = outbox.Outbox(
            engine=world.engine, channel=posts[number], url="", campaigns=[invite], calendar=world.calendar,
            clock=lambda: at("2026-03-01 12:00"), worker=f"w{number}", batch=10,
        )  # fmt: skip
        try:
            start.wait()
            box.deliver()
        except Exception as error:
            faults.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    assert sum(len(post.taken) for post in posts) == 400
    assert world.one("select count(distinct coupon_code) from messages where state = 'sent'") == 400
    assert codes(world) == {"bound": 400}
    printed = [
        line for post in posts for message, _ in post.taken for line in message.text.split() if line.startswith("SHOP")
    ]
    assert len(set(printed)) == 400  # in the mail itself


def test_four_planners_at_once_never_spend_more_than_the_budget(world: World) -> None:
    declare(world, kind="generated", worth=10, budget={"most_value": 250, "per": "week"})
    loyal(world, 60)
    invite = campaign("loyalty_join")
    world.plan(invite, JOINED)
    start, faults = threading.Barrier(4), []

    def work() -> None:
        try:
            start.wait()
            with db.transaction(world.engine) as conn:
                coupons.reserve(conn, invite, at(JOINED))
        except Exception as error:
            faults.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert faults == []
    assert codes(world) == {"reserved": 25}
    assert world.deliver(invite, now="2026-03-01 12:00")["sent"] == 25
    # a new week has a new budget
    assert wake(world, "2026-03-02 12:00")["coupon_woken"] == 25


# ---------------------------------------------------------------- expiry, files


def test_a_code_about_to_run_out_is_not_given_and_one_that_has_is_replaced(world: World) -> None:
    declare(world, **IMPORTED, least_days=3)
    stock_up(world, 3, until=at("2026-03-05"), prefix="SOON")  # the mail may wait until the 4th
    loyal(world)
    assert plan(world)["coupons_short"] == 1
    stock_up(world, 1, until=at("2026-04-01"), prefix="LATE")
    assert plan(world, "2026-03-01 10:00")["coupons_reserved"] == 1
    # the shop takes it back earlier than it said
    world.do("update coupons set valid_until = '2026-03-01 11:00' where state = 'reserved'")
    stock_up(world, 1, prefix="NEXT")
    world.deliver(campaign("loyalty_join"), now="2026-03-01 12:00")
    assert world.one("select coupon_code from messages") == "NEXT1"
    assert codes(world) == {"free": 3, "void": 1, "bound": 1}


def test_bad_rows_are_named_by_line_and_nothing_is_imported(world: World, tmp_path: Path) -> None:
    declare(world, **IMPORTED)
    stock_up(world, 1)
    file = tmp_path / "codes.csv"
    file.write_text(
        "code,valid_until\nGOOD-1,2027-01-31\nhas space,\nGOOD-2,\ngood-1,\nshop1,\nGOOD-3,31.12.2026\nGOOD-4,2025-01-01\nGOOD-5\n"
    )
    with db.transaction(world.engine) as conn, pytest.raises(InputError) as error:
        coupons.import_codes(conn, "club", file, at(JOINED))
    told = {fault.line: fault.message for fault in error.value.faults if fault.line}
    assert list(told) == [3, 5, 6, 7, 8, 9]
    assert "is the same code as line 2" in told[5]
    assert 'is in pool "club" already' in told[6]
    assert "write e.g. 2027-01-31" in told[7]
    assert "run out" in told[8]
    assert "1 cells" in told[9]
    assert codes(world) == {"free": 1}
    with db.transaction(world.engine) as conn:
        counts, _ = coupons.import_codes(conn, "club", file, at(JOINED), good_rows=True)
    assert counts == {"read": 8, "imported": 2, "refused": 6}
    assert world.one("select valid_until from coupons where code = 'GOOD-1'") == at("2027-02-01")


def test_the_same_file_again_imports_nothing_and_says_why(world: World, tmp_path: Path) -> None:
    declare(world, **IMPORTED)
    file = tmp_path / "codes.csv"
    file.write_text("code\n" + "\n".join(f"X{n:06}" for n in range(30_000)))
    with db.transaction(world.engine) as conn:
        assert coupons.import_codes(conn, "club", file, at(JOINED))[0]["imported"] == 30_000
    with db.transaction(world.engine) as conn, pytest.raises(InputError, match="and 29,950 more rows"):
        coupons.import_codes(conn, "club", file, at(JOINED))
    assert codes(world) == {"free": 30_000}


@pytest.mark.parametrize(
    ("content", "told"),
    [("", "the first line must be"), ("K1\nK2", "the first line must be"), ("code\n", "holds no code")],
)
def test_a_file_that_is_no_list_of_codes_is_refused(world: World, tmp_path: Path, content: str, told: str) -> None:
    declare(world, **IMPORTED)
    (tmp_path / "codes.csv").write_text(content)
    with db.transaction(world.engine) as conn, pytest.raises(InputError, match=told):
        coupons.import_codes(conn, "club", tmp_path / "codes.csv", at(JOINED))


def test_codes_are_only_imported_into_a_pool_that_asks_for_them(world: World, tmp_path: Path) -> None:
    declare(world, **IMPORTED)
    declare(world, "winback", kind="generated")
    with db.transaction(world.engine) as conn:
        with pytest.raises(InputError, match='"winback" makes its codes itself'):
            coupons.import_codes(conn, "winback", tmp_path / "none.csv", at(JOINED))
        with pytest.raises(InputError, match='did you mean "club"'):
            coupons.import_codes(conn, "clubb", tmp_path / "none.csv", at(JOINED))


def test_a_voided_code_is_replaced_where_it_was_only_planned_and_stays_where_it_was_sent(world: World) -> None:
    declare(world, **IMPORTED)
    stock_up(world, 3)
    loyal(world)
    plan(world)
    with db.transaction(world.engine) as conn:
        assert coupons.void(conn, "club", ["shop1", "nosuch"], at(JOINED)) == {
            "void": 1, "were_free": 0, "were_reserved": 1, "were_bound": 0, "not_found": 1
        }  # fmt: skip
    world.deliver(campaign("loyalty_join"), now="2026-03-01 12:00")
    assert world.one("select coupon_code from messages") == "SHOP2"
    with db.transaction(world.engine) as conn:
        coupons.void(conn, "club", ["SHOP2"], at(JOINED))
        assert coupons.void(conn, "club", [], at(JOINED), everything=True)["void"] == 1
    assert world.do("select state, message_id is null from coupons where code = 'SHOP2'") == [("void", False)]
    assert world.one("select coupon_code from messages") == "SHOP2"


# ---------------------------------------------------------------- erasure, referral codes, files people edit


def test_erasing_messages_leaves_codes_withdrawn_and_nothing_to_follow(world: World) -> None:
    declare(world, **IMPORTED)
    stock_up(world, 3)
    loyal(world, 2)
    plan(world)
    first = world.one("select message_id from messages order by message_id limit 1")
    world.do("update messages set state = 'sent', handed_over_at = now(), finalized_at = now() where message_id = :m",
             m=first)  # fmt: skip
    world.do("update coupons set state = 'bound', bound_at = now() where message_id = :m", m=first)
    world.do("delete from messages")
    assert codes(world) == {"free": 2, "bound": 1}
    assert world.one("select count(message_id) from coupons") == 0
    columns = {
        row[0] for row in world.do("select column_name from information_schema.columns where table_name = 'coupons'")
    }
    assert not columns & {"customer_id", "email", "address", "name"}


def test_a_customer_has_one_referral_code_for_ever(world: World) -> None:
    people = loyal(world, 3)
    invite = campaign("loyalty_join")
    world.plan(invite, JOINED)
    with db.transaction(world.engine) as conn:
        assert coupons.give_referral_codes(conn, invite, at(JOINED)) == 3
        assert coupons.give_referral_codes(conn, invite, at(JOINED)) == 0
    kept = world.do("select customer_id, code from referral_codes order by 1")
    assert [row[0] for row in kept] == people
    assert len({row[1] for row in kept}) == 3
    world.do("delete from referral_codes")
    # two people want the same code: the second gets another one
    from postlude.tokens import coupon_code

    world.do(
        "insert into referral_codes values (:c, :code, now())",
        c=people[0],
        code=coupon_code("referral", str(people[1]), 0),
    )
    with db.transaction(world.engine) as conn:
        assert coupons.give_referral_codes(conn, invite, at(JOINED)) == 2
    assert world.one("select code from referral_codes where customer_id = :c", c=people[1]) == coupon_code(
        "referral", str(people[1]), 1
    )
    assert not coupons.names_referral(invite)


@pytest.mark.parametrize(
    ("text", "line", "told"),
    [
        ("pools:\n  club:\n    kind: importd\n", 3, "generated"),
        ("pools:\n  club: {kind: imported, low_att: 3}\n", 2, "low_at"),
        ("pools:\n  club:\n    kind: generated\n    budget: {most_value: 10}\n", 2, "worth"),
        ("pools:\n  club: {kind: generated, low_at: 5}\n", 2, "budget"),
        ("pools:\n  club: {kind: imported, budget: {per: month}}\n", 2, "most_codes"),
    ],
)
def test_a_wrong_pool_file_names_the_line_and_the_cure(tmp_path: Path, text: str, line: int, told: str) -> None:
    (tmp_path / "coupons.yml").write_text(text)
    with pytest.raises(InputError) as error:
        coupons.load_pools(tmp_path / "coupons.yml")
    assert any(fault.line == line and told in fault.message for fault in error.value.faults), str(error.value)


def test_a_campaign_that_names_an_undeclared_pool_does_not_plan() -> None:
    faults = coupons.pool_faults(campaign("loyalty_join"), {"clubs": coupons.Pool(kind="imported")})
    assert [fault.key for fault in faults] == ["steps[0].coupon.pool"]
    assert faults[0].line > 1
    assert 'did you mean "clubs"' in faults[0].message
    assert coupons.pool_faults(campaign("win_back"), coupons.load_pools()) == []
    assert pipeline.validate() == []


# ---------------------------------------------------------------- command line and cost


def test_the_command_line_imports_lists_exports_and_voids(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(db, "default_engine", lambda: world.engine)
    monkeypatch.setattr(coupons, "load_pools", lambda: {"club": coupons.Pool(kind="imported", low_at=5)})
    (tmp_path / "codes.csv").write_text("code\nAAA1\nAAA2\n")
    run = CliRunner().invoke
    assert json.loads(run(app, ["import", "club", str(tmp_path / "codes.csv"), "--json"]).stdout)["imported"] == 2
    assert "LOW" in run(app, ["list"]).stdout
    assert json.loads(run(app, ["void", "club", "AAA1", "--json"]).stdout)["void"] == 1
    assert run(app, ["void", "club"]).exit_code == 2
    run(app, ["export", "club", "--out", str(tmp_path / "out.csv")])
    lines = (tmp_path / "out.csv").read_text().splitlines()
    assert [line.split(",")[:2] for line in lines[1:]] == [["AAA1", "void"], ["AAA2", "free"]]


def test_giving_codes_back_costs_little_where_there_are_none(world: World) -> None:
    """The trigger asks nothing of the database unless a message ends: 20,000 changes of state in well under a second."""
    loyal(world)
    world.plan(campaign("loyalty_join"), JOINED)
    world.do("insert into enrolments select gen_random_uuid(), campaign_id, version, customer_id, order_id, 'k' || n, anchor_at, "
             "watch_from, arm, enrolled_at, null, null, run_id from enrolments, generate_series(1, 20000) as n limit 20000")  # fmt: skip
    world.do("insert into messages (message_id, enrolment_id, campaign_id, step_id, customer_id, kind, template, state, due_at, "
             "send_at, expires_at, planned_at, run_id) select gen_random_uuid(), enrolment_id, campaign_id, 'x', customer_id, 'marketing', "
             "'t', "
             "'scheduled', now(), now(), now() + interval '1 day', now(), '' from enrolments")  # fmt: skip
    began = time.monotonic()
    world.do("update messages set send_at = send_at + interval '1 minute'")
    world.do("update messages set state = 'cancelled', reason = 'x', finalized_at = now()")
    assert time.monotonic() - began < 5
