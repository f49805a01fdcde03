"""The sample shop: repeatable, whole, and like a real shop."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pytest
from scipy.special import hyp2f1
from sqlalchemy import Connection, text

from postlude import intake, sample
from postlude.errors import InputError
from postlude.sample import catalogue, people, purchases
from postlude.settings import settings
from postlude.sources import load_source

NOW = datetime(2026, 5, 20, 9, 30, tzinfo=UTC)
Ask = Callable[[str], list[tuple[Any, ...]]]


def shop(folder: Path) -> Ask:
    """Answers SQL about the feed in `folder`: one view per entity, and `sound` with the orders that count."""
    engine = duckdb.connect()
    engine.execute("set TimeZone = 'UTC'")
    for entity in sample.ENTITIES:
        engine.execute(f"create view {entity} as select * from '{folder}/{entity}/*.parquet'")
    engine.execute(
        """create view sound as
           select o.*, l.amount, c.country, coalesce(c.time_zone, 'Europe/Berlin') as zone
           from orders o join customers c using (customer_id) join (
               select order_id, sum(quantity * unit_price) as amount from order_lines
               where quantity > 0 and unit_price > 0 group by 1
           ) l using (order_id)
           where o.cancelled_at is null and o.placed_at < timestamptz '2099-01-01' and o.currency = 'EUR'"""
    )
    engine.execute(
        """create view arrived as
           select order_id, max(delivered_at) as delivered_at from shipments
           group by 1 having bool_and(delivered_at is not null)"""
    )
    return lambda sql: engine.execute(sql).fetchall()


def content(folder: Path, keep: str = "true") -> dict[str, tuple[Any, ...]]:
    """Number and checksum of the rows of each entity."""
    rows = "select to_json(x)::varchar as r from (select * from '{0}/{1}/*.parquet' where {2}) x"
    return {
        entity: duckdb.sql(
            "select count(*), md5(string_agg(r, chr(10) order by r)) from (" + rows.format(folder, entity, keep) + ")"
        ).fetchall()[0]
        for entity in sample.ENTITIES
    }


@pytest.fixture(scope="module")
def feed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shop")
    sample.generate(folder, 20_000, 7, NOW, bad_share=0.004)
    return folder


@pytest.fixture(scope="module")
def ask(feed: Path) -> Ask:
    return shop(feed)


# ---------------------------------------------------------------- repeatable


def test_the_same_seed_size_and_instant_give_the_same_rows(tmp_path: Path) -> None:
    for name, seed, now in [("a", 7, NOW), ("b", 7, NOW), ("c", 8, NOW), ("d", 7, NOW + timedelta(days=1))]:
        sample.generate(tmp_path / name, 1_500, seed, now)
    assert content(tmp_path / "a") == content(tmp_path / "b")
    for other in "cd":
        assert content(tmp_path / "a")["orders"] != content(tmp_path / other)["orders"]


def test_the_history_of_a_customer_does_not_depend_on_how_many_follow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample, "CHUNK", 1_000)
    for size in (1_500, 3_200):
        sample.generate(tmp_path / str(size), size, 7, NOW, bad_share=0)
    assert len(list((tmp_path / "3200/orders").iterdir())) == 4
    by_customer = {
        "customers": "customer_id",
        "orders": "customer_id",
        "consents": "customer_id",
        "tickets": "customer_id",
        "external_events": "customer_id",
    }
    for entity in sample.ENTITIES:
        key = by_customer.get(entity, "order_id")
        keep = "true" if entity == "products" else f"substr({key}, 2, 8)::int <= 1500"
        small, large = (
            duckdb.sql(
                "select count(*), bit_xor(hash(x)) from "
                f"(select * from '{tmp_path}/{size}/{entity}/*.parquet' where {keep}) x"
            ).fetchall()
            for size in (1_500, 3_200)
        )
        assert small == large and small[0][0] > 0, entity
    first, second = (
        duckdb.sql(
            f"select md5(string_agg(first_name, '' order by customer_id)) from '{tmp_path}/3200/customers/{part}'"
        ).fetchall()
        for part in ("part-00000.parquet", "part-00001.parquet")
    )
    assert first != second


def test_a_feed_made_later_on_the_same_day_only_adds_to_the_earlier_one(tmp_path: Path) -> None:
    for hour in (7, 19):
        sample.generate(tmp_path / str(hour), 2_000, 7, NOW.replace(hour=hour), bad_share=0)
    early, late = shop(tmp_path / "7"), shop(tmp_path / "19")
    lasting = {
        "customers": "*", "consents": "*", "products": "*", "order_lines": "*",
        "orders": "order_id, customer_id, placed_at", "shipments": "shipment_id, shipped_at",
        "reviews": "review_id, created_at, score", "returns": "return_id, requested_at",
        "tickets": "ticket_id, opened_at", "external_events": "*",
    }  # fmt: skip
    for entity, columns in lasting.items():
        sql = f"select columns(*)::varchar from (select {columns} from {entity})"
        before, after = set(early(sql)), set(late(sql))
        assert before <= after, entity
        if entity in ("orders", "order_lines", "shipments", "reviews"):
            assert before < after, entity
    status = "select order_id, status, updated_at::varchar from orders"
    known = {order: (status, version) for order, status, version in early(status)}
    changed = {
        order: (known[order][1], version)
        for order, status, version in late(status)
        if order in known and known[order] != (status, version)
    }
    assert changed and all(before < after for before, after in changed.values())


def test_faulty_copies_leave_the_good_rows_as_they_are(tmp_path: Path) -> None:
    clean = sample.generate(tmp_path / "clean", 1_000, 7, NOW, bad_share=0)
    dirty = sample.generate(tmp_path / "dirty", 1_000, 7, NOW, bad_share=0.02)
    assert clean["faulty"] == 0 < dirty["faulty"] == sum(dirty[e] - clean[e] for e in sample.ENTITIES)
    for entity in sample.ENTITIES:
        missing = duckdb.sql(
            f"select count(*) from (from '{tmp_path}/clean/{entity}/*.parquet' "
            f"except all from '{tmp_path}/dirty/{entity}/*.parquet')"
        ).fetchall()
        assert missing == [(0,)], entity
        assert 0 < dirty[entity] - clean[entity] < 0.035 * clean[entity], entity


def test_the_counts_returned_are_the_rows_written(feed: Path, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    counts = sample.generate(tmp_path, 1_200, 3, NOW, progress=lambda *step: told.append(step))
    assert {entity: rows for entity, (rows, _) in content(tmp_path).items()} == {e: counts[e] for e in sample.ENTITIES}
    assert told == [("customers", 1_200, 1_200)]


def test_an_interrupted_run_leaves_the_feed_as_it_was_and_a_smaller_shop_leaves_no_old_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sample, "CHUNK", 500)
    sample.generate(tmp_path, 1_500, 7, NOW)
    before = content(tmp_path)

    def stop(label: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sample.generate(tmp_path, 1_500, 8, NOW, progress=stop)
    assert content(tmp_path) == before
    sample.generate(tmp_path, 400, 7, NOW)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(sample.ENTITIES)
    assert [path.name for path in (tmp_path / "orders").iterdir()] == ["part-00000.parquet"]


@pytest.mark.parametrize(
    ("change", "word"),
    [({"customers": 0}, "customers"), ({"customers": 10_000_001}, "customers"), ({"seed": -1}, "seed"),
     ({"bad_share": 0.5}, "bad_share"), ({"now": datetime(2026, 5, 20)}, "now")],
)  # fmt: skip
def test_senseless_arguments_are_refused_before_anything_is_written(
    tmp_path: Path, change: dict[str, Any], word: str
) -> None:
    with pytest.raises(InputError, match=f"^{word}: "):
        sample.generate(**({"folder": tmp_path / "x", "customers": 1_000, "seed": 7, "now": NOW} | change))
    assert not (tmp_path / "x").exists()


# ---------------------------------------------------------------- whole


def test_good_rows_refer_to_rows_that_exist_and_every_fault_is_there(ask: Ask) -> None:
    nobody = "not exists (select 1 from customers c where c.customer_id = t.customer_id)"
    no_order = "not exists (select 1 from orders o where o.order_id = t.order_id)"
    keys = {"orders": (nobody, "order_id"), "consents": (nobody, "customer_id"), "tickets": (nobody, "ticket_id")} | {
        entity: (no_order, "order_id") for entity in ("order_lines", "shipments", "returns", "reviews")
    }
    for entity, (orphan, key) in keys.items():
        ((orphans, without_key, total),) = ask(
            f"select count(*) filter ({orphan}), count(*) filter ({key} is null), count(*) from {entity} t"
        )
        assert 0 < orphans < 0.006 * total, entity
        # an orphan is either an intended one (number from 99,000,000) or has no number at all
        named = "customer_id" if orphan == nobody else "order_id"
        ((accidents,),) = ask(
            f"select count(*) from {entity} t where {orphan} and {named} is not null and {named} not like '_99%'"
        )
        assert accidents == 0, entity
        assert entity in ("returns", "reviews", "tickets") or without_key > 0, entity
    ((future, currency, timeless),) = ask(
        "select count(*) filter (placed_at >= '2099-01-01'), count(*) filter (currency <> 'EUR'), "
        "count(*) filter (placed_at is null) from orders"
    )
    assert min(future, currency, timeless) > 0


def test_every_good_order_has_lines_and_its_amount_is_what_was_paid_but_for_freight(ask: Ask) -> None:
    ((orders, without_lines, odd),) = ask(
        """select count(*), count(*) filter (l.order_id is null),
                  count(*) filter (o.paid_amount is not null and o.paid_amount - l.amount not in (0, 4.90, 9.90))
           from orders o left join (select order_id, sum(quantity * unit_price) as amount from order_lines
                                    where quantity is not null group by 1) l using (order_id)
           where o.order_id is not null and o.order_id not like '%-x'"""
    )
    assert (orders > 60_000, without_lines, odd) == (True, 0, 0)
    assert ask("select count(*) - count(distinct order_id) from orders where order_id is not null") == [(0,)]
    assert ask(
        "select count(*) from order_lines "
        "where sku is null or sku not in (select sku from products where sku is not null)"
    ) == [(0,)]


def test_nothing_lies_in_the_future_and_everything_happens_in_order(ask: Ask) -> None:
    good = "o.order_id not like '%-x'"
    ((chaos,),) = ask(
        f"""select count(*) from orders o join shipments s using (order_id) where {good} and (
                s.shipped_at <= o.placed_at or o.paid_at is null or s.shipped_at <= o.paid_at
                or s.delivered_at <= s.shipped_at
                or o.cancelled_at is not null or s.shipped_at >= '{NOW}' or s.delivered_at >= '{NOW}')"""
    )
    ((backwards,),) = ask(
        f"""select count(*) from returns r join arrived a using (order_id)
            where r.order_id not like 'o99%' and (
                r.requested_at <= a.delivered_at or r.received_at <= r.requested_at or r.refunded_at <= r.received_at
                or greatest(r.requested_at, r.received_at, r.refunded_at) >= '{NOW}')"""
    )
    ((hasty,),) = ask(
        "select count(*) from reviews join arrived using (order_id) "
        f"where (created_at <= delivered_at or created_at >= '{NOW}') and order_id not like 'o99%'"
    )
    ((early, after_now, before),) = ask(
        f"""select count(*) filter (c.created_at > o.placed_at), count(*) filter ({good} and o.placed_at >= '{NOW}'),
                   count(*) filter (o.placed_at < timestamptz '{NOW}' - interval '730 days')
            from orders o join customers c using (customer_id) where {good}"""
    )
    assert (chaos, backwards, hasty, early, after_now, before) == (0, 0, 0, 0, 0, 0)
    ((last,),) = ask(f"select epoch(timestamptz '{NOW}') - max(epoch(placed_at)) from sound")
    assert last < 2 * 3600
    assert {s for (s,) in ask("select distinct status from orders")} == {
        "pending", "paid", "shipped", "delivered", "cancelled", "returned",
    }  # fmt: skip


def test_names_come_in_many_scripts_and_some_are_awkward(ask: Ask) -> None:
    seen = {name for (name,) in ask("select distinct first_name from customers")}
    assert None in seen and set(people.AWKWARD) <= seen
    countries = dict(ask("select country, count(distinct time_zone) from customers group by 1"))
    assert countries == {"DE": 1, "GB": 1, "US": 3, "KR": 1, "JP": 1, "BR": 1, "AU": 1}
    ((hangul,),) = ask(
        "select avg((first_name similar to '[가-힣]+')::int) from customers where country = 'KR' and locale = 'ko'"
    )
    assert hangul > 0.95
    ((without, foreign),) = ask(
        "select avg((email is null)::int), count(*) filter (email not like '%@customers.example') "
        "from customers where not marketplace"
    )
    assert 0.01 < without < 0.03 and foreign == 0


# ---------------------------------------------------------------- like a real shop


def stages(ask: Ask, now: datetime = NOW) -> dict[str, float]:
    found = ask(
        f"""with c as (
                select count(*) as n, epoch(timestamptz '{now}') - max(epoch(placed_at)) as s
                from sound group by customer_id)
            select case when s < 30 * 86400 and n = 1 then 'new' when s < 90 * 86400 then 'active'
                        when s < 180 * 86400 then 'at_risk' else 'lapsed' end,
                   count(*) / sum(count(*)) over () from c group by 1"""
    )
    return {stage: float(share) for stage, share in found}


def assert_mixed(mix: dict[str, float]) -> None:
    bands = {"new": (0.045, 0.10), "active": (0.30, 0.45), "at_risk": (0.145, 0.225), "lapsed": (0.30, 0.45)}
    assert {stage: share for stage, share in mix.items() if not bands[stage][0] <= share <= bands[stage][1]} == {}
    assert mix.keys() == bands.keys()


def test_the_stages_are_mixed_as_in_a_real_shop(ask: Ask) -> None:
    assert_mixed(stages(ask))


@pytest.mark.parametrize("month", [1, 9, 12])
def test_the_mix_holds_in_every_season(tmp_path: Path, month: int) -> None:
    now = datetime(2026, month, 20, 16, 0, tzinfo=UTC)
    sample.generate(tmp_path, 5_000, 11, now)
    assert_mixed(stages(shop(tmp_path), now))


def test_there_is_work_due_today_for_each_flagship_campaign(ask: Ask) -> None:
    ((feedback,),) = ask(
        f"""select count(*) from sound join arrived a using (order_id)
            where timezone(zone, a.delivered_at)::date = timezone(zone, timestamptz '{NOW}')::date - 30
              and not exists (select 1 from reviews r where r.order_id = sound.order_id)
              and not exists (select 1 from returns r where r.order_id = sound.order_id)"""
    )
    ((lapsed,),) = ask(
        f"""select count(*) from (
                select epoch(timestamptz '{NOW}') - max(epoch(placed_at)) as s from sound group by customer_id)
            where s >= 180 * 86400 and s < 183 * 86400"""
    )
    ((loyal,),) = ask(
        f"""with ranked as (
                select customer_id, placed_at, row_number() over w as n, sum(amount) over w as spent
                from sound window w as (partition by customer_id order by placed_at)),
            crossed as (select customer_id, min(placed_at) as since from ranked where n >= 3 or spent >= 300 group by 1)
            select count(*) from crossed where since >= timestamptz '{NOW}' - interval '3 days'"""
    )
    assert min(feedback, lapsed, loyal) >= 20, (feedback, lapsed, loyal)


def test_deliveries_returns_reviews_and_consents_have_the_shares_of_a_shop(ask: Ask) -> None:
    shares = {
        "cancelled": ("avg((cancelled_at is not null)::int) from orders", 0.015, 0.026),
        "marketplace": ("avg((marketplace is not null)::int) from orders", 0.065, 0.10),
        "gift": ("avg(gift::int) from orders", 0.03, 0.05),
        "late": (
            "avg((timezone('Europe/Berlin', delivered_at)::date > promised_on)::int) "
            "from orders join arrived using (order_id)",
            0.055, 0.09,
        ),
        "returned": ("count(r.order_id) / count(*) from arrived left join returns r using (order_id)", 0.05, 0.075),
        "reviewed": ("count(r.order_id) / count(*) from arrived left join reviews r using (order_id)", 0.20, 0.30),
        "granted": (
            """count(g.customer_id) / count(*) from customers c
               left join (select distinct customer_id from consents where granted) g using (customer_id)
               where not c.marketplace and c.email is not null""",
            0.83, 0.87,
        ),
        "withdrawn": ("count(*) filter (basis = 'unsubscribe') / count(*) filter (granted) from consents", 0.06, 0.10),
        "several lines": ("avg((n > 1)::int) from (select count(*) n from order_lines group by order_id)", 0.4, 0.65),
        "two parcels": ("avg((n > 1)::int) from (select count(*) as n from shipments group by order_id)", 0.04, 0.10),
    }  # fmt: skip
    found = {name: float(ask(f"select {sql}")[0][0]) for name, (sql, _, _) in shares.items()}
    assert {name: share for name, share in found.items() if not shares[name][1] <= share <= shares[name][2]} == {}
    for entity, unfinished in {"shipments": "delivered_at", "returns": "closed_at", "tickets": "closed_at"}.items():
        ((open_, done),) = ask(f"select count(*) filter ({unfinished} is null), count({unfinished}) from {entity}")
        assert 0 < open_ < done, entity
    ((least, most, late, punctual),) = ask(
        """select min(score), max(score) filter (score <= 5),
                  avg(score) filter (timezone('Europe/Berlin', delivered_at)::date > promised_on),
                  avg(score) filter (timezone('Europe/Berlin', delivered_at)::date <= promised_on)
           from reviews join arrived using (order_id) join orders using (order_id)"""
    )
    assert (least, most) == (1, 5) and late < punctual - 0.5


def test_people_order_in_the_evening_of_their_own_zone_and_most_before_christmas(ask: Ask) -> None:
    by_hour = ask(
        """select zone, avg((hour between 1 and 4)::int), avg((hour between 19 and 21)::int)
           from (select zone, hour(timezone(zone, placed_at)) as hour from sound) group by 1"""
    )
    assert len(by_hour) == len(people.ZONES)
    assert all(night < 0.05 and evening > 0.18 for _, night, evening in by_hour), by_hour
    ((winter, spring),) = ask(
        """select count(*) filter (month(placed_at) in (11, 12)), count(*) filter (month(placed_at) in (2, 3))
           from sound where placed_at >= '2025-11-01' and placed_at < '2026-04-01'"""
    )
    assert winter > 1.15 * spring


def test_repeat_purchases_follow_bg_nbd_and_order_values_gamma_gamma() -> None:
    era = purchases.Era(NOW)
    rng = np.random.default_rng(5)
    crowd = people.customers(rng, 1, 60_000)
    orders, joined_at = purchases._orders(rng, era, crowd)
    bought = np.bincount(orders["customer"] - 1, minlength=60_000)
    buyers = bought > 0
    t = era.weeks - era.busy_weeks(joined_at[buyers], crowd["zone"][buyers])
    r, alpha, a, b = purchases.RATE_SHAPE, purchases.RATE_SCALE, purchases.DROPOUT_A, purchases.DROPOUT_B
    # expected repeat purchases by t: Fader, Hardie, Lee (2005), equation 9
    expected = (a + b - 1) / (a - 1) * (1 - (alpha / (alpha + t)) ** r * hyp2f1(r, b, a + b - 1, t / (alpha + t)))
    assert np.mean(bought[buyers] - 1) == pytest.approx(np.mean(expected), rel=0.04)
    assert np.mean(buyers) == pytest.approx(purchases.BUYERS, abs=0.005)

    p, q, scale = purchases.VALUE_P, purchases.VALUE_Q, purchases.VALUE_SCALE
    assert np.mean(orders["value"]) == pytest.approx(p * scale / (q - 1), rel=0.04)
    purchases._baskets(rng, shelf := catalogue.catalogue(rng), orders)
    goods = orders["paid"] / 100
    assert np.mean(goods) == pytest.approx(np.mean(orders["value"]), rel=0.12)
    assert np.corrcoef(goods, orders["value"])[0, 1] > 0.85
    assert len(set(shelf.sku)) == len(set(shelf.name)) == len(shelf.sku) > 300 and len(set(shelf.category)) == 8


def test_the_clock_of_the_shop_can_be_read_both_ways() -> None:
    era = purchases.Era(NOW)
    rng = np.random.default_rng(1)
    zone = rng.integers(0, len(people.ZONES), 2_000)
    at = rng.integers(era.start, era.now, 2_000)
    assert np.abs(era.instant(era.busy_weeks(at, zone), zone) - at).max() <= 1
    assert era.busy_weeks(np.full(9, era.end), np.arange(9)) == pytest.approx(np.full(9, era.weeks))


# ---------------------------------------------------------------- through the intake


def test_the_intake_loads_every_good_row_and_quarantines_every_faulty_one(
    tmp_path: Path, conn: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("POSTLUDE_HOME", str(tmp_path))
    source = load_source(settings().include / "sources" / "sample_shop.yml")
    assert {entity: spec.columns for entity, spec in source.entities.items()} == {
        entity: tuple(columns) for entity, columns in sample.COLUMNS.items()
    }
    written = sample.generate(tmp_path / "sample", 5_000, 7, NOW)
    assert written["faulty"] > 50

    staged = intake.extract(conn, source, NOW, "first")
    loaded = intake.load(conn, source, NOW, "first")
    assert (staged["rows_quarantined"], loaded["rows_quarantined"]) == (written["faulty"], written["faulty"])
    total = sum(written[entity] for entity in sample.ENTITIES)
    assert loaded["rows_loaded"] == total - written["faulty"] > 0
    good = shop(tmp_path / "sample")
    stored = {entity: conn.scalar(text(f"select count(*) from postlude.{entity}")) for entity in sample.ENTITIES}
    ((versions,),) = good("select count(*) - count(distinct sku) from products where sku is not null")
    assert sum(stored.values()) + versions == loaded["rows_loaded"]
    assert conn.scalar(text("select count(*) from postlude.product_changes")) == versions > 20
    assert stored["customers"] == 5_000
    born, renewing = conn.execute(text("select count(birthday), count(renews_on) from postlude.customers")).one()
    assert (born, renewing) == (3_334, 100)
    ((orders, amount),) = good("select count(*), sum(amount) from sound where order_id not like '%-x'")
    counted = conn.execute(
        text(
            "select count(*), sum(counted_amount), count(*) filter (where customer_id is null) from postlude.orders "
            "where counted_at is not null and cancelled_at is null"
        )
    ).one()
    assert tuple(counted) == (orders, amount, 0)
    names = {name for (name,) in conn.execute(text("select first_name from postlude.customers"))}
    assert {"O'Brien", "{{ name }}"} <= names

    # a feed made later the same day brings what happened in between, and nothing is taken back
    later = NOW + timedelta(hours=5)
    sample.generate(tmp_path / "sample", 5_000, 7, later)
    intake.extract(conn, source, later, "second")
    second = intake.load(conn, source, later, "second")
    assert second["customers"] == second["products"] == 0
    assert 0 < second["orders"] < 200
    assert conn.scalar(text("select count(*) from postlude.orders")) > stored["orders"]
    assert conn.scalar(text("select complete_until from postlude.sources")) > NOW
