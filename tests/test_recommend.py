"""What is bought together is counted exactly, and recommended with its reason, never to who has it already."""

from __future__ import annotations

import json
import random
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from postlude import db, recommend
from world import World, at

NOW = "2026-03-02 12:00"
TABLES = ("product_orders", "co_purchases", "recommendations", "bestsellers", "product_gaps")


@pytest.fixture
def world(engine: Engine) -> World:
    return World(engine)


def shelf(world: World, **categories: str) -> None:
    for category, skus in categories.items():
        for sku in skus.split():
            world.do(
                "insert into products (source_id, sku, name, category, price, in_stock) values ('shop', :sku, :name, :category, 10, true)",
                sku=sku, name=sku.capitalize(), category=category or None,
            )  # fmt: skip


def basket(world: World, customer: int, when: str, skus: str) -> int:
    first, *others = skus.split()
    order = world.order(customer, when, sku=first)
    for number, sku in enumerate(others, 2):
        world.do(
            "insert into order_lines values (:o, :n, :sku, 'x', 1, 10, :at)", o=order, n=str(number), sku=sku, at=at(when)
        )  # fmt: skip
    return order


def count(world: World, now: Any = NOW, full: bool = False) -> dict[str, int]:
    with db.transaction(world.engine) as conn:
        return recommend.count(conn, at(now) if isinstance(now, str) else now, "test", full)


def recommended(world: World, customer: int, most: int = 5) -> list[tuple[str, str, str | None]]:
    with db.transaction(world.engine) as conn:
        return [(r["sku"], r["reason"], r["because"]) for r in recommend.for_customer(conn, customer, at(NOW), most)]


def test_people_get_what_goes_with_what_they_bought_with_the_reason(world: World) -> None:
    shelf(world, kitchen="pan pot lid", garden="rake hose")
    for n in range(8):
        basket(world, world.customer(f"C{n}"), f"2026-02-0{n + 1}", "pan lid rake")
        basket(world, world.customer(f"D{n}"), f"2026-02-0{n + 1}", "pot hose")
    ana = world.customer()
    basket(world, ana, "2026-02-20", "pan")
    count(world)
    # the best of each kind with its reason; then what sells in the category bought from, then in the shop
    assert recommended(world, ana, 6) == [
        ("lid", "similar", "Pan"), ("rake", "complementary", "Pan"), ("pot", "category_bestseller", "kitchen"),
        ("hose", "bestseller", None),
    ]  # fmt: skip
    world.do("update products set in_stock = false where sku = 'lid'")
    order = basket(world, ana, "2026-02-25", "RAKE")
    world.do("insert into returns values (:o, 'r', 'rake', '2026-02-27')", o=order)
    assert recommended(world, ana, 6) == [
        ("hose", "category_bestseller", "garden"), ("pot", "category_bestseller", "kitchen"),
    ]  # fmt: skip


def test_who_never_bought_gets_the_bestsellers_of_the_shop(world: World) -> None:
    shelf(world, kitchen="pan pot")
    for n in range(3):
        basket(world, world.customer(), f"2026-02-0{n + 1}", "pan pot" if n else "pan")
    count(world)
    assert recommended(world, world.customer()) == [("pan", "bestseller", None), ("pot", "bestseller", None)]


def test_few_common_orders_do_not_beat_many_and_huge_baskets_say_little(world: World) -> None:
    import numpy as np

    orders, articles = [], []
    for order in range(40):  # 0 and 1 together forty times, in big orders of resellers
        for article in (0, 1, *range(10, 130)):
            orders.append(order)
            articles.append(article)
    for order in range(40, 44):
        for article in (0, 2):
            orders.append(order)
            articles.append(article)
    found = recommend.co_purchases(np.array(orders), np.array(articles), np.ones(130, dtype=bool), 3)
    pairs = {(a, b): (n, w) for a, b, n, w in found.pairs}
    assert pairs[0, 1] == (40, 40 * (1000 * 50 // 122))  # exact count, small weight
    assert pairs[0, 2] == (4, 4000)
    assert found.single[0] == (44, 40 * 409 + 4000)


def test_an_order_holds_a_pair_once_and_a_cancelled_one_never(world: World) -> None:
    shelf(world, kitchen="pan pot")
    for n in range(4):
        order = basket(world, world.customer(), f"2026-02-0{n + 1}", "pan pot PAN pan")
    count(world)
    assert world.do("select sku, other, orders from co_purchases") == [("PAN", "POT", 4)]
    world.do("update orders set cancelled_at = '2026-03-01' where order_id = :o", o=order)
    assert count(world)["articles"] == 2
    assert world.do("select sku, other, orders from co_purchases") == [("PAN", "POT", 3)]
    assert count(world)["articles"] == 0


def test_the_mail_knows_recommendations_and_the_standing_in_the_club_as_of_its_hand_over(
    world: World, tmp_path: Path
) -> None:
    from types import SimpleNamespace

    from postlude import letter_extras, loyalty
    from postlude.loyalty_rules import load_loyalty
    from written import written

    shelf(world, kitchen="pan pot lid")
    for n in range(4):
        basket(world, world.customer(f"C{n}"), f"2026-02-0{n + 1}", "pan lid pot")
    ana, ben = world.customer(), world.customer("Ben")
    for person in (ana, ben):
        basket(world, person, "2026-02-20", "pan")
    with db.transaction(world.engine) as conn:
        recommend.count(conn, at("2026-03-01"), "test")
        loyalty.join(conn, ana, at("2026-02-01"), "mira")
        loyalty.adjust(conn, ana, 120, at("2026-02-01"), "mira", "a present", at("2026-03-20"))
        loyalty.update(conn, load_loyalty(), at("2026-03-01"), "test")
    world.do("update products set in_stock = false, price = 7 where sku = 'lid'")  # since the count
    hello = written(tmp_path, "{event: placed, entry: existing, max_age: 20 days}")
    world.plan(hello, NOW)
    letters = [
        SimpleNamespace(message_id=m, zone="UTC", template="t")
        for (m,) in world.do("select message_id from messages order by customer_id")
    ]
    with db.transaction(world.engine) as conn:
        found = letter_extras.of(conn, letters[-2:], {"t": set(letter_extras.NAMES)}, at(NOW))
        assert letter_extras.of(conn, letters, {"t": {"order"}}, at(NOW)) == {}
    hers, his = (found[letter.message_id] for letter in letters[-2:])
    assert [(r["sku"], r["reason"], r["because"], r["currency"]) for r in his["recommendations"]] == [
        ("pot", "similar", "Pan", "EUR")
    ]
    assert "loyalty" not in his  # no member: the template finds none
    standing = hers["loyalty"]
    assert (standing["points"], standing["tier"], standing["next_tier"], standing["missing"]) == (
        120,
        "Friend",
        "Regular",
        250,
    )
    assert (standing["points_to_next"], standing["expiring"], f"{standing['expires_on']}") == (250, 120, "2026-03-20")


@pytest.mark.parametrize("seed", range(3))
def test_counted_in_parts_or_from_scratch_is_the_same(world: World, seed: int) -> None:
    """Whatever comes: new orders, late lines, cancellations (also ahead of time), new articles and categories."""
    dice = random.Random(seed)
    skus = [f"a{n}" for n in range(12)]
    shelf(world, one=" ".join(skus[:5]), two=" ".join(skus[5:9]))
    people = [world.customer(f"P{n}") for n in range(6)]
    orders: list[int] = []
    now = at("2026-01-01")
    for _ in range(5):
        for _ in range(dice.randint(1, 14)):
            when = now + timedelta(hours=dice.randint(-60, 30))  # some are dated ahead of the count
            some = dice.sample(skus, dice.randint(1, 5))
            orders.append(basket(world, dice.choice(people), f"{when:%Y-%m-%d %H:%M}", " ".join(some)))
        if dice.random() < 0.8:
            world.do("update orders set cancelled_at = :at where order_id = any(:o)",
                     o=dice.sample(orders, min(2, len(orders))), at=now + timedelta(hours=dice.randint(-20, 40)))  # fmt: skip
        if dice.random() < 0.5:
            world.do("delete from order_lines where order_id = :o and line_key = '2'", o=dice.choice(orders))
        if dice.random() < 0.5:
            world.do(
                "update products set category = :c where sku = :s",
                c=dice.choice(["one", "two", None]),
                s=dice.choice(skus[:9]),
            )
        count(world, now)
        parts = {name: world.do(f"select * from {name} order by 1, 2, 3, 4") for name in TABLES}
        count(world, now, full=True)
        for name in TABLES:
            assert parts[name] == world.do(f"select * from {name} order by 1, 2, 3, 4"), name
        now += timedelta(days=1)
    assert world.one("select count(*) from co_purchases") > 10 < world.one("select count(*) from recommendations")


@pytest.mark.real_data
@pytest.mark.slow
def test_the_counts_of_a_real_year_are_those_of_the_reference(uci_engine: Engine, real_data: Path) -> None:
    wanted = json.loads((real_data / "uci_year1_open.json").read_text())
    with db.transaction(uci_engine) as conn:
        recommend.count(conn, at(wanted["as_of"]), "test")
        # as the reference says: articles whose code begins with five digits, in at least a hundred orders
        view = """create temporary view counted as select c.sku, c.other, c.orders from co_purchases as c
            join product_orders as a on a.sku = c.sku join product_orders as b on b.sku = c.other
            where c.sku ~ '^[0-9]{5}' and c.other ~ '^[0-9]{5}' and a.orders >= 100 and b.orders >= 100"""
        conn.exec_driver_sql(view)
        top = conn.execute(text("select sku, other, orders from counted order by orders desc, sku, other limit 15"))
        assert [list(row) for row in top] == wanted["copurchase"]["top15_pairs"]
        seed = wanted["copurchase"]["seed"]
        assert (
            conn.scalar(text("select orders from product_orders where sku = :s"), {"s": seed})
            == wanted["copurchase"]["seed_support"]
        )
        beside = text("""select case sku when :s then other else sku end as other, orders from counted where :s in (sku, other)
                         order by orders desc, other limit 10""")
        assert [list(row) for row in conn.execute(beside, {"s": seed})] == wanted["copurchase"]["seed_top10"]
