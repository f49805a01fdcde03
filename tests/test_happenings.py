"""What happened in the shop becomes an event that starts a campaign, once, and is over when it is over."""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine, text

from postlude import audience, db, gifts, happenings, loyalty, recovery
from postlude.loyalty_rules import load_loyalty, load_recovery
from world import INCLUDE, World, at
from written import written

NOW = "2026-03-02 12:00"
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def world(engine: Engine) -> World:
    made = World(engine)
    made.do("update products set price = 20, in_stock = true, url = 'https://shop.example/p/' || sku")
    return made


def tell(world: World, customer: int, kind: str, when: str, order: int | None = None, **detail: Any) -> None:
    """A system of the shop tells an event."""
    world.do(
        "insert into external_events (source_id, event_key, customer_id, kind, at, known_at, order_id, detail) "
        "values ('shop', :key, :customer, :kind, :at, :at, :order, cast(:detail as jsonb))",
        key=f"{kind}:{customer}:{when}:{json.dumps(detail)}", customer=customer, kind=kind, at=at(when), order=order,
        detail=json.dumps(detail),
    )  # fmt: skip


def change(world: World, sku: str, when: str, **values: Any) -> None:
    """The shop's catalogue is delivered anew, with these values of one product."""
    known = dict(
        world.do("select name, category, price, url, image_url, in_stock, stock from products where sku = :s", s=sku)[
            0
        ]._mapping
    )
    with db.transaction(world.engine) as conn:
        conn.exec_driver_sql(
            "create temporary table staging_products (sku text, name text, category text, price numeric, url text, image_url text, "
            "in_stock boolean, stock numeric, cost numeric, updated_at timestamptz, "
            "_file int, _row int, problems text[] default '{}') on commit drop"
        )
        conn.execute(
            text("""insert into staging_products (sku, name, category, price, url, image_url, in_stock, stock, updated_at)
                    values (:sku, :name, :category, :price, :url, :image_url, :in_stock, :stock, :at)"""),
            known | {"in_stock": None if "stock" in values else known["in_stock"]} | values | {"sku": sku, "at": at(when)},
        )  # fmt: skip
        assert db.run(conn, "12_merge_products", source="shop", now=at(when)).scalar_one() == 1


def note(world: World, now: str | datetime = NOW) -> dict[str, int]:
    """The segment run up to the events, as the DAG does it."""
    moment = at(now) if isinstance(now, str) else now
    rules, cases = load_loyalty(), load_recovery()
    assert rules and cases and rules.gifts
    with db.transaction(world.engine) as conn:
        audience.derive_features(conn, moment, "test")
        loyalty.update(conn, rules, moment, "test")
        recovery.update(conn, cases, moment)
        gifts.draw(conn, rules.gifts, moment)
        return happenings.note(conn, rules, moment)


def events(world: World, kind: str) -> list[tuple[int, datetime, dict[str, Any]]]:
    rows = world.do(
        "select customer_id, at, detail from external_events where kind = :k and worked_out order by at, customer_id",
        k=kind,
    )
    return [tuple(row) for row in rows]


def over(world: World, kind: str, now: str) -> list[bool]:
    return [
        row[0]
        for row in world.do(
            "select happening_over(x, :now) from external_events as x where kind = :k order by at, customer_id",
            k=kind,
            now=at(now),
        )
    ]


def test_an_empty_shop_has_no_happenings(world: World) -> None:
    assert set(note(world).values()) == {0}


def test_a_checkout_without_an_order_is_told_after_an_hour_and_over_with_the_order(world: World) -> None:
    ana, ben = world.customer(), world.customer("Ben")
    cart = {
        "cart": "7",
        "items": [{"sku": "MUG", "quantity": 2}, {"sku": "gone", "quantity": 1}],
        "url": "https://shop.example/c/7",
    }
    tell(world, ana, "checkout_started", "2026-03-02 10:30", **cart)
    tell(world, ana, "checkout_started", "2026-03-02 10:40", **cart)
    tell(world, ben, "checkout_started", "2026-03-02 11:30", **cart | {"cart": "8"})
    assert note(world)["abandoned_checkout"] == 1
    assert note(world)["abandoned_checkout"] == 0
    ((customer, when, detail),) = events(world, "abandoned_checkout")
    assert (customer, when) == (ana, at("2026-03-02 10:30"))
    assert [(i["name"], i["quantity"], i["unit_price"]) for i in detail["items"]] == [("Blue mug", 2, 20)]
    assert (detail["amount"], detail["currency"]) == (40, "EUR")
    assert over(world, "abandoned_checkout", NOW) == [False]
    world.do("update products set in_stock = false where sku = 'mug'")
    assert over(world, "abandoned_checkout", NOW) == [True]
    world.do("update products set in_stock = true where sku = 'mug'")
    world.order(ana, "2026-03-02 11:50")
    assert over(world, "abandoned_checkout", NOW) == [True]


def test_who_waited_longest_hears_first_that_a_product_is_back_and_no_more_than_there_are_pieces(world: World) -> None:
    people = [world.customer(f"P{n}") for n in range(9)]
    change(world, "mug", "2026-02-20", stock=0)
    for n, person in enumerate(people):
        tell(world, person, "product_watched", f"2026-02-21 0{n}:00", sku="mug", wants="back_in_stock")
    change(world, "mug", "2026-03-02 08:00", stock=2)
    assert note(world)["back_in_stock"] == 6  # two pieces, three people each
    assert [person for person, _, _ in events(world, "back_in_stock")] == people[:6]
    assert note(world)["back_in_stock"] == 0
    change(world, "mug", "2026-03-02 13:00", stock=0)
    assert over(world, "back_in_stock", "2026-03-02 13:00") == [True] * 6
    change(world, "mug", "2026-03-03 08:00", stock=50)
    assert note(world, "2026-03-03 12:00")["back_in_stock"] == 3  # the others have waited on
    assert {person for person, when, _ in events(world, "back_in_stock") if when == at("2026-03-03 08:00")} == set(
        people[6:]
    )


def test_a_price_that_fell_far_enough_is_told_to_who_watches_and_is_over_when_it_rises(world: World) -> None:
    ana = world.customer()
    tell(world, ana, "product_watched", "2026-02-20", sku="mug")
    change(world, "mug", "2026-02-25", price=19)
    assert note(world)["price_drop"] == 0  # five per cent are no news
    change(world, "mug", "2026-03-01", price=15)
    assert note(world)["price_drop"] == 1
    ((_, _, detail),) = events(world, "price_drop")
    assert (detail["was"], detail["price"], detail["percent"]) == (19, 15, 21)
    change(world, "mug", "2026-03-02 13:00", price=20)
    assert over(world, "price_drop", "2026-03-02 13:00") == [True]


def test_what_is_used_up_is_told_before_by_the_own_gap_or_by_the_products(world: World) -> None:
    ana, ben = world.customer(), world.customer("Ben")
    for when in ("2026-01-01", "2026-01-21", "2026-02-10"):
        world.order(ana, when, sku="soap")
    world.order(ben, "2026-01-20", sku="soap")
    world.do("insert into product_gaps values ('shop', 'SOAP', 40, 30)")
    assert note(world)["replenishment_due"] == 2
    told = {person: detail for person, _, detail in events(world, "replenishment_due")}
    assert (told[ana]["gap_of"], told[ana]["gap_days"], told[ana]["expected_on"]) == ("own", 20, "2026-03-02")
    assert (told[ben]["gap_of"], told[ben]["gap_days"], told[ben]["expected_on"]) == ("product", 40, "2026-03-01")
    world.order(ben, "2026-03-02 08:00", sku="mug")
    assert over(world, "replenishment_due", NOW) == [False, False]
    world.order(ben, "2026-03-02 09:00", sku="soap")
    assert sorted(over(world, "replenishment_due", NOW)) == [False, True]


def test_the_next_order_is_expected_from_the_own_rhythm_or_after_the_delivery(world: World) -> None:
    ana, ben = world.customer(), world.customer("Ben")
    for when in ("2026-01-01", "2026-01-31", "2026-02-05"):
        world.order(ana, when)  # gaps of 30 and 5 days: half of them 17.5
    world.order(ben, "2026-02-01", delivered="2026-02-06")
    assert note(world)["next_order_expected"] == 2
    told = {
        person: (when, detail["gap_of"], detail["expected_on"])
        for person, when, detail in events(world, "next_order_expected")
    }
    assert told[ben] == (at("2026-02-26"), "delivery", None)
    assert told[ana] == (at("2026-02-15 12:00"), "own", "2026-02-22")
    world.order(ben, "2026-03-01")
    assert sorted(over(world, "next_order_expected", NOW)) == [False, True]


def test_a_late_parcel_a_late_refund_and_the_next_mornings_packing_are_told_until_they_are_over(world: World) -> None:
    ana, ben, eve = world.customer(), world.customer("Ben"), world.customer("Eve")
    world.order(ana, "2026-01-10", delivered="2026-01-12")  # the shop tells deliveries
    late = world.order(ana, "2026-02-20")
    world.do("update orders set promised_on = '2026-02-27', paid_at = placed_at where order_id = :o", o=late)
    back = world.order(ben, "2026-01-20", delivered="2026-01-24")
    world.do("insert into returns values (:o, 'r1', 'mug', '2026-02-01', '2026-02-15', null, null)", o=back)
    evening = world.order(eve, "2026-03-01 18:00")
    world.do("update orders set paid_at = placed_at where order_id = :o", o=evening)
    counts = note(world)
    assert [counts[kind] for kind in ("delivery_delayed", "refund_late", "packed_today")] == [1, 1, 1]
    ((_, when, detail),) = events(world, "delivery_delayed")
    assert (when, detail["days_late"], detail["eta"]) == (at("2026-03-01"), 3, None)
    ((_, when, detail),) = events(world, "refund_late")
    assert (when, detail["due_on"]) == (at("2026-02-25"), "2026-02-25")
    assert events(world, "packed_today")[0][1] == at("2026-03-02")
    # a new ETA is told once more
    world.do("insert into shipments values (:o, '1', 'van', 'https://t', '2026-02-21', '2026-03-04', null)", o=late)
    assert [note(world)["delivery_delayed"] for _ in "12"] == [1, 0]
    assert events(world, "delivery_delayed")[1][2]["eta"] == "2026-03-04"
    world.do("update shipments set delivered_at = '2026-03-02 10:00' where order_id = :o", o=late)
    world.do("update returns set refunded_at = '2026-03-02 10:00' where order_id = :o", o=back)
    world.do("insert into shipments values (:o, '1', 'van', null, '2026-03-02 10:00', null, null)", o=evening)
    for kind in ("delivery_delayed", "refund_late", "packed_today"):
        assert set(over(world, kind, NOW)) == {True}


def test_nothing_is_late_in_a_shop_that_never_tells_what_arrived(world: World) -> None:
    late = world.order(world.customer(), "2026-02-20")
    world.do("update orders set promised_on = '2026-02-22', paid_at = placed_at where order_id = :o", o=late)
    assert note(world)["delivery_delayed"] == 0 and not events(world, "recovery_opened")
    world.order(world.customer("Ben"), "2025-02-20", delivered="2025-02-24")  # it told once, a year ago, and no more
    assert note(world)["delivery_delayed"] == 0
    world.order(world.customer("Eve"), "2026-01-10", delivered="2026-01-12")
    assert note(world)["delivery_delayed"] == 1 and len(events(world, "recovery_opened")) == 1


def test_no_old_news(world: World) -> None:
    ana = world.customer()
    tell(world, ana, "checkout_started", "2026-01-10", cart="1", items=[{"sku": "mug", "quantity": 1}])
    assert note(world)["abandoned_checkout"] == 0


def test_a_campaign_starts_from_a_happening_with_its_order_and_ends_when_it_is_over(
    world: World, tmp_path: Path
) -> None:
    ana, ben = world.customer(), world.customer("Ben")
    world.order(ana, "2026-01-10", delivered="2026-01-12")
    orders = [world.order(person, "2026-02-20") for person in (ana, ben)]
    world.do("update orders set promised_on = '2026-02-27', paid_at = placed_at where order_id = any(:o)", o=orders)
    note(world)
    late = written(
        tmp_path, "{external: delivery_delayed, entry: existing, max_age: 5 days, once_per: episode}",
        more="stop_while: []\nexit_on: [over, cancelled]",
    )  # fmt: skip
    world.plan(late, "2026-03-02 12:00")
    assert {row[0] for row in world.do("select order_id from enrolments")} == set(orders)
    world.do("insert into shipments values (:o, '1', 'van', null, '2026-02-21', null, '2026-03-02 12:30')", o=orders[0])
    world.deliver(late, now="2026-03-02 13:00")
    assert world.states(ana)[-1][1:] == ("cancelled", "over")
    assert world.received(ben) == ["one"]


def test_the_sample_shop_has_work_for_every_kind_that_is_documented(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from postlude import intake, recommend, sample
    from postlude.sources import load_source

    monkeypatch.setenv("POSTLUDE_HOME", str(tmp_path))
    now = at("2026-05-20 09:30")
    sample.generate(tmp_path / "sample", 6_000, 7, now)
    source = load_source(INCLUDE / "sources" / "sample_shop.yml")
    rules, cases = load_loyalty(), load_recovery()
    assert rules and cases and rules.gifts
    rules = rules.model_copy(
        update={"keep_tier": timedelta(0)}
    )  # or a tier would be kept for longer than this test looks
    assert rules.gifts
    with db.transaction(engine) as conn:
        intake.extract(conn, source, now, "test")
        intake.load(conn, source, now, "test")
    with db.transaction(engine) as conn:
        recommend.count(conn, now, "test")
        conn.exec_driver_sql(
            "update external_events set known_at = at"
        )  # as if every event had been told when it happened
    for moment in (now - timedelta(days=60), now):
        with db.transaction(engine) as conn:
            audience.derive_features(conn, moment, "test")
            conn.exec_driver_sql("analyze")
            loyalty.update(conn, rules, moment, "test")
            recovery.update(conn, cases, moment)
            gifts.draw(conn, rules.gifts, moment)
            counts = happenings.note(conn, rules, moment)
    with db.transaction(engine) as conn:
        found = set(conn.scalars(text("select distinct kind from external_events")))
        again = happenings.note(conn, rules, now)
    page = (ROOT / "docs" / "happenings.md").read_text()
    documented = {
        kind
        for line in page.splitlines()
        if line.startswith("| `")
        for kind in re.findall(r"`(\w+)`", line.split("|")[1])
    }
    assert len(documented) == 40
    # nothing was ever sent, so nobody left a mail unanswered
    assert documented - found == {"disengaged", "upgraded", "loyalty_left"}, counts
    assert set(again.values()) == {0}
