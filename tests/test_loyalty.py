"""The loyalty club: points follow the orders, balances equal the ledger whatever happens, tiers move and are told."""

from __future__ import annotations

import random
import re
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine
from sqlalchemy.exc import DBAPIError

from postlude import db, loyalty
from postlude.errors import InputError
from postlude.loyalty_rules import load_loyalty
from test_happenings import events, note, over, tell
from world import World, at

JOINED = "2026-01-01"


@pytest.fixture
def world(engine: Engine) -> World:
    return World(engine)


def member(world: World, name: str = "Ana", club: str = "free", when: str = JOINED) -> int:
    customer = world.customer(name)
    tell(world, customer, "loyalty_joined", when, club=club)
    return customer


def points(world: World, customer: int) -> int:
    return int(world.one("select coalesce(sum(points), 0) from loyalty_accounts where customer_id = :c", c=customer))


def entries(world: World, customer: int) -> list[tuple[str, int]]:
    return [
        tuple(row)
        for row in world.do(
            "select kind, points from loyalty_ledger where customer_id = :c order by entry_id", c=customer
        )
    ]


def test_a_delivered_order_earns_once_and_a_refund_takes_back_what_it_brought(world: World) -> None:
    ana, ben = member(world), world.customer("Ben")
    order = world.order(ana, "2026-01-10", amount=80, delivered="2026-01-15")
    world.do("insert into order_lines values (:o, '2', 'soap', 'x', 2, 10, '2026-01-10')", o=order)
    world.do("update orders set counted_amount = 100 where order_id = :o", o=order)
    world.order(ana, "2026-01-20", amount=30)  # still under way
    world.order(ana, "2025-12-01", amount=70, delivered="2025-12-05")  # before joining
    world.order(ben, "2026-01-10", amount=50, delivered="2026-01-12")  # no member
    note(world, "2026-02-01")
    note(world, "2026-02-01")
    assert (entries(world, ana), points(world, ben)) == ([("earned", 100)], 0)
    world.do(
        "insert into returns values (:o, 'r', 'soap', '2026-02-03', '2026-02-08', '2026-02-10', '2026-02-10')", o=order
    )
    note(world, "2026-02-09")
    assert points(world, ana) == 100
    note(world, "2026-02-11")
    assert entries(world, ana) == [("earned", 100), ("taken_back", -20)]
    world.do("update orders set cancelled_at = '2026-02-12' where order_id = :o", o=order)
    note(world, "2026-02-13")
    assert (entries(world, ana)[-1], points(world, ana)) == (("taken_back", -80), 0)


def test_the_ledger_cannot_be_changed_and_redeeming_needs_the_points(world: World) -> None:
    ana = member(world)
    with db.transaction(world.engine) as conn:
        assert loyalty.adjust(conn, ana, 50, at("2026-02-01"), "mira", "a long wait at the till") == 50
    for statement in ("update loyalty_ledger set points = 1", "delete from loyalty_ledger", "truncate loyalty_ledger"):
        with pytest.raises(DBAPIError, match="append-only"):
            world.do(statement)
    with db.transaction(world.engine) as conn:
        assert loyalty.redeem(conn, ana, 30, at("2026-02-02"), "till 1", "mug", "redeem:7")
        assert not loyalty.redeem(conn, ana, 30, at("2026-02-02"), "till 1", "mug", "redeem:7")  # told twice
    with pytest.raises(InputError, match=r"has 20 points; 30 cannot"), db.transaction(world.engine) as conn:
        loyalty.redeem(conn, ana, 30, at("2026-02-02"), "till 1", "mug", "redeem:8")
    with pytest.raises(InputError, match="reason"), db.transaction(world.engine) as conn:
        loyalty.adjust(conn, ana, 5, at("2026-02-02"), "mira", " ")
    with pytest.raises(InputError, match="below zero"), db.transaction(world.engine) as conn:
        loyalty.adjust(conn, ana, -21, at("2026-02-02"), "mira", "a slip")
    assert points(world, ana) == 20


def test_what_is_spent_comes_from_the_points_that_go_first_and_the_rest_expires(world: World) -> None:
    ana = member(world, when="2024-12-01")
    world.order(ana, "2025-01-10", amount=100, delivered="2025-01-15")
    world.order(ana, "2025-06-10", amount=60, delivered="2025-06-15")
    note(world, "2025-07-01")
    with db.transaction(world.engine) as conn:
        loyalty.redeem(conn, ana, 30, at("2025-08-01"), "till", "mug", "redeem:1")
    assert [tuple(r) for r in world.do("select expires_at, points from loyalty_expiries order by 1")] == [
        (at("2026-01-15"), 70), (at("2026-06-15"), 60),
    ]  # fmt: skip
    note(world, "2025-12-20")
    ((customer, when, detail),) = events(world, "points_expiring")
    assert (customer, when) == (ana, at("2025-12-16"))
    assert (detail["points"], detail["expires_on"], detail["balance"], detail["worth"]) == (70, "2026-01-15", 130, 1.4)
    assert over(world, "points_expiring", "2025-12-20") == [False]
    with db.transaction(world.engine) as conn:
        loyalty.redeem(conn, ana, 70, at("2025-12-21"), "till", "mug", "redeem:2")
    assert over(world, "points_expiring", "2025-12-22") == [True]
    note(world, "2026-01-20")
    note(world, "2026-06-20")
    assert (entries(world, ana)[-1], points(world, ana)) == (("expired", -60), 0)


def test_tiers_go_up_at_once_down_after_a_while_and_both_are_told(world: World) -> None:
    ana = member(world, when="2025-01-01")
    note(world, "2025-01-02")
    assert world.one("select tier from loyalty_accounts") == "friend"
    world.order(ana, "2025-01-10", amount=400, delivered="2025-01-12")
    note(world, "2025-01-13")
    assert [(d["tier"], d["was"], d["next_tier"], d["next_at"]) for _, _, d in events(world, "tier_up")] == [
        ("regular", "Friend", "Insider", 900)
    ]
    with db.transaction(world.engine) as conn:
        found = loyalty.account(conn, ana, at("2025-01-14"), load_loyalty())
    assert (found["tier_name"], found["member"], found["points"]) == (
        "Regular",
        "free",
        500,
    )  # the order's own tier counts
    note(world, "2026-01-20")
    assert [(d["tier"], d["was"]) for _, _, d in events(world, "tier_down")] == [("friend", "Regular")]
    assert over(world, "tier_up", "2026-01-20") == [True]
    assert events(world, "tier_up") and note(world, "2026-01-20")["tier_changed"] == 0


def test_the_paid_club_is_due_before_its_day_renewed_by_a_payment_and_ends_without_one(world: World) -> None:
    ana, ben = member(world, club="paid", when="2025-03-10"), member(world, "Ben", "paid", "2025-03-10")
    note(world, "2026-03-01")
    told = events(world, "renewal_due")
    assert [(c, when, d["what"], d["renews_on"], d["amount"]) for c, when, d in told] == [
        (person, at("2026-02-24"), "club", "2026-03-10", 29) for person in (ana, ben)
    ]
    tell(world, ana, "payment_succeeded", "2026-03-09", what="club", invoice="1")
    note(world, "2026-03-12")
    note(world, "2026-03-12")
    assert world.do("select customer_id, renews_on::text from loyalty_memberships order by 1".replace("::text", "")) == [
        (ana, at("2027-03-10").date()), (ben, at("2026-03-10").date()),
    ]  # fmt: skip
    assert over(world, "renewal_due", "2026-03-12") == [True, False]
    note(world, "2026-03-26")
    assert world.do("select kind, left_at, left_why from loyalty_memberships where customer_id = :c order by joined_at", c=ben) == [
        ("paid", at("2026-03-25"), "not renewed"), ("free", None, None),
    ]  # fmt: skip
    assert over(world, "renewal_due", "2026-03-26") == [True, True]


def test_crossing_the_threshold_is_told_once_and_over_when_they_join(world: World) -> None:
    ana = world.customer()
    world.order(ana, "2026-02-20", amount=350)
    assert [note(world)["threshold_crossed"] for _ in "12"] == [1, 0]
    ((_, _, detail),) = events(world, "threshold_crossed")
    assert (detail["amount"], detail["percent"], detail["tier_name"]) == (350, 10, "Regular")
    tell(world, ana, "loyalty_joined", "2026-03-02 13:00")
    note(world, "2026-03-02 14:00")
    assert over(world, "threshold_crossed", "2026-03-02 14:00") == [True]


def test_points_tier_and_membership_are_features_of_segments_and_conditions(world: World, tmp_path: Path) -> None:
    from postlude import audience

    ana, ben = member(world, when="2026-02-01"), world.customer("Ben")
    for person in (ana, ben):
        world.order(person, "2026-02-10", amount=350, delivered="2026-02-12")
    file = tmp_path / "insiders.yml"
    file.write_text(
        "id: insiders\nname: Insiders\ndescription: Members who spend.\n"
        "where: {all: [{feature: member, is_not: 'no'}, {feature: tier, in: [regular]}, {feature: points, at_least: 300}]}\n"
    )
    segments = audience.load_segments(tmp_path)
    for now in ("2026-02-11", "2026-03-01"):
        note(world, now)
        with db.transaction(world.engine) as conn:
            audience.update_segments(conn, segments, at(now), "test")
        members = [row[0] for row in world.do("select customer_id from segment_memberships where left_at is null")]
        assert members == ([ana] if now == "2026-03-01" else [])


@pytest.mark.parametrize("seed", range(2))
def test_balances_equal_the_ledger_after_any_history_also_at_the_same_time(world: World, seed: int) -> None:
    """Orders, returns, cancellations, redemptions and corrections, several at once; nobody overdraws, nothing is booked twice."""
    dice = random.Random(seed)
    rules = load_loyalty()
    assert rules
    people = [member(world, f"P{n}", when="2025-01-01") for n in range(3)]
    now = at("2025-01-05")
    for _ in range(4):
        for _ in range(4):
            delivered = f"{now - timedelta(days=1):%Y-%m-%d}" if dice.random() < 0.8 else None
            world.order(
                dice.choice(people),
                f"{now - timedelta(days=3):%Y-%m-%d}",
                amount=dice.randint(5, 300),
                delivered=delivered,
            )
        order = world.one("select order_id from orders where placed_at > :since order by md5(order_id || :s) limit 1",
                          s=str(dice.random()), since=now - timedelta(days=450))  # fmt: skip
        if dice.random() < 0.5:
            world.do(
                "insert into returns values (:o, 'r', null, :at, :at, :at, :at) on conflict do nothing", o=order, at=now
            )
        else:
            world.do(
                "update orders set cancelled_at = coalesce(cancelled_at, :at) where order_id = :o", o=order, at=now
            )

        def work(number: int, seen: Any = now) -> None:
            mine = random.Random(f"{seed} {number} {seen}")
            for turn in range(3):
                try:
                    with db.transaction(world.engine) as conn:
                        if number == 0:
                            loyalty.update(conn, rules, seen, f"run{turn}")
                        elif mine.random() < 0.7:
                            ref = f"redeem:{seen}:{mine.randint(1, 4)}"  # some are told by two tills
                            loyalty.redeem(conn, mine.choice(people), mine.randint(1, 120), seen, "till", "mug", ref)
                        else:
                            loyalty.adjust(conn, mine.choice(people), mine.choice([-40, 25]), seen, "mira", "goodwill")
                except InputError:
                    pass  # not enough points: refused, and nothing of it stays

        threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        now += timedelta(days=dice.choice([20, 120, 300]))
        with db.transaction(world.engine) as conn:
            loyalty.update(conn, rules, now, "after")
        again = world.do("select count(*), sum(points) from loyalty_ledger")
        with db.transaction(world.engine) as conn:
            assert loyalty.update(conn, rules, now, "again")["booked"] == 0
        assert world.do("select count(*), sum(points) from loyalty_ledger") == again
        assert world.do(
            "select customer_id from loyalty_accounts full join (select customer_id, sum(points) as sum from loyalty_ledger group by 1) "
            "as l using (customer_id) where coalesce(points, 0) <> coalesce(sum, 0)"
        ) == []  # fmt: skip
        # what an order brought is what it was worth, whatever came between
        assert world.do(
            "select l.order_id from loyalty_ledger as l join orders as o using (order_id) where o.cancelled_at is not null "
            "group by 1 having sum(points) <> 0"
        ) == []  # fmt: skip
        assert world.do("select 1 from loyalty_expiries where points <= 0") == []
    assert world.do(
        "select customer_id from loyalty_ledger group by 1 having sum(points) filter (where kind = 'redeemed' or (kind = 'adjusted' and "
        "points < 0)) + sum(points) filter (where points > 0) < 0"
    ) == []  # fmt: skip


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("spend: 900", "spend: 299", 'tiers[2].spend: must be more than that of "regular"'),
        ("tier: regular # at", "tier: regulr # at", 'club.tier: there is no tier "regulr"; did you mean "regular"'),
        ("join: {percent: 10}", "join: {percent: 0}", "join.percent"),
        ("gives: thanks", "gives: nothing", "gifts.choices[2].gives"),
        ("on: delivered", "on: shipped", "earn.on"),
    ],
)
def test_a_slip_in_the_file_is_told_with_its_line(tmp_path: Path, old: str, new: str, words: str) -> None:
    from world import INCLUDE

    file = tmp_path / "loyalty.yml"
    body = (INCLUDE / "loyalty.yml").read_text()
    assert old in body
    file.write_text(body.replace(old, new))
    line = next(number for number, told in enumerate(file.read_text().splitlines(), 1) if new in told)
    with pytest.raises(InputError, match=re.escape(words)) as refused:
        load_loyalty(file)
    assert [fault.line for fault in refused.value.faults] == [line]
