"""Features against an oracle in plain Python that knows nothing of SQL, and against published figures of real shops."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_EVEN, ROUND_HALF_UP, Decimal
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, text

from postlude import audience
from postlude.errors import InputError
from postlude.settings import Settings
from postlude.settings import settings as postlude_settings

NOW = datetime(2026, 4, 2, 6, tzinfo=UTC)
DAY = timedelta(days=1)
TICK = timedelta(microseconds=1)


@dataclass(frozen=True)
class Order:
    """What the features depend on; `ago` counts back from NOW. No amount: no line of it counts."""

    ago: timedelta
    amount: str | None = "10.00"
    cancelled_ago: timedelta | None = None
    known_customer: bool = True


History = list[list[Order]]  # orders by customer


def insert(conn: Connection, histories: History, shops: int = 1) -> list[int]:
    """Customers with their orders, spread over shops; returns the customers' ids."""
    for number in range(shops):
        conn.execute(
            text(
                "insert into sources (source_id, shop, kind, currency, time_zone)"
                " values (:s, :s, 'files', 'EUR', 'UTC')"
            ),
            {"s": f"shop{number}"},
        )
    ids: list[int] = []
    for number, orders in enumerate(histories):
        ids.append(
            conn.execute(
                text(
                    "insert into customers (source_id, source_customer_id, known_at)"
                    " values (:s, :n, :t) returning customer_id"
                ),
                {"s": f"shop{number % shops}", "n": str(number), "t": NOW},
            ).scalar_one()
        )
        add_orders(conn, ids[-1], orders, f"shop{number % shops}")
    return ids


def add_orders(conn: Connection, customer: int, orders: list[Order], shop: str = "shop0") -> None:
    for order in orders:
        counts = order.amount is not None and order.known_customer
        conn.execute(
            text(
                "insert into orders (source_id, source_order_id, customer_id, currency, placed_at, known_at,"
                " cancelled_at, counted_at, counted_amount) values"
                " (:shop, gen_random_uuid()::text, :customer, 'EUR', :at, :at, :cancelled, :counted, :amount)"
            ),
            {
                "shop": shop,
                "customer": customer if order.known_customer else None,
                "at": NOW - order.ago,
                "cancelled": None if order.cancelled_ago is None else NOW - order.cancelled_ago,
                "counted": NOW - order.ago if counts else None,
                "amount": Decimal(order.amount) if counts and order.amount else None,
            },
        )


# ---------------------------------------------------------------- the oracle


def counting(orders: list[Order], as_of: datetime) -> list[tuple[datetime, Decimal]]:
    """Times and amounts of the orders that count, oldest first."""
    cut = NOW - as_of
    return sorted(
        (
            (NOW - order.ago, Decimal(order.amount))
            for order in orders
            if order.known_customer
            and order.amount is not None
            and order.ago > cut
            and (order.cancelled_ago is None or order.cancelled_ago < cut)
        ),
        key=lambda pair: pair[0],
    )


def stage_of(times: list[datetime], at: datetime) -> str | None:
    """The stage of somebody with orders at `times`, at an instant after the last of them."""
    if not times:
        return None
    elapsed = at - max(times)
    if elapsed < 30 * DAY and len(times) == 1:
        return "new"
    return "active" if elapsed < 90 * DAY else "at_risk" if elapsed < 180 * DAY else "lapsed"


def stage_since(times: list[datetime], now: datetime) -> datetime:
    """Walk back over every instant at which something could have changed, until the stage was another one."""
    stage, since = stage_of(times, now), now
    changes = {t + d * DAY for t in times for d in (0, 30, 90, 180)}
    for at in sorted((c for c in changes if c < now), reverse=True):
        if stage_of([t for t in times if t <= at], at) != stage:  # just after `at`
            break
        since = at
        if (
            stage_of([t for t in times if t < at], at) != stage
        ):  # exactly at `at`: an order at that very instant is too young
            break
    return since


def quintiles(keys: dict[int, Any]) -> dict[int, int]:
    """1..5 by rank, the first buckets one larger where it does not divide."""
    ranked = sorted(keys, key=lambda customer: (keys[customer], customer))
    size, larger = divmod(len(ranked), 5)
    borders = [bucket for bucket in range(1, 6) for _ in range(size + (bucket <= larger))]
    return dict(zip(ranked, borders, strict=True))


def expected(histories: History, ids: list[int], shops: int, now: datetime) -> dict[int, dict[str, Any]]:
    found: dict[int, dict[str, Any]] = {}
    for number, (customer, orders) in enumerate(zip(ids, histories, strict=True)):
        counted = counting(orders, now)
        if not counted:
            continue
        times = [t for t, _ in counted]
        gaps = [(b - a) / DAY for a, b in pairwise(times)]
        spent = [sum((a for _, a in counted[: n + 1]), Decimal(0)) for n in range(len(counted))]
        crossed = [t for n, t in enumerate(times) if n + 1 >= 3 or spent[n] >= 300]
        stage = stage_of(times, now)
        ends = {"new": 30, "active": 90, "at_risk": 180}
        found[customer] = {
            "source_id": f"shop{number % shops}",
            "first_order_at": times[0],
            "last_order_at": times[-1],
            "recency_days": (now - times[-1]) // DAY,
            "frequency": len(times),
            "monetary": spent[-1].quantize(Decimal("0.01"), ROUND_HALF_UP),
            "median_gap_days": median(gaps) if gaps else None,
            "stage": stage,
            "stage_since": stage_since(times, now),
            "next_stage_at": times[-1] + ends[stage] * DAY if stage in ends else None,
            "loyal_since": crossed[0] if crossed else None,
        }
    for shop in {row["source_id"] for row in found.values()}:
        mine = {customer: row for customer, row in found.items() if row["source_id"] == shop}
        for score, key, sign in (
            ("r_score", "recency_days", -1),
            ("f_score", "frequency", 1),
            ("m_score", "monetary", 1),
        ):
            for customer, bucket in quintiles({c: sign * row[key] for c, row in mine.items()}).items():
                found[customer][score] = bucket
    return found


def features(conn: Connection) -> dict[int, dict[str, Any]]:
    rows = conn.execute(text("select * from customer_features")).mappings()
    return {row["customer_id"]: dict(row) for row in rows}


# ---------------------------------------------------------------- random histories

ago = st.one_of(
    st.sampled_from(
        [d * DAY + e * TICK for d in (-1, 0, 29, 30, 60, 89, 90, 120, 179, 180, 210, 270) for e in (-1, 0, 1)]
    ),
    st.timedeltas(min_value=-5 * DAY, max_value=400 * DAY),
)
order = st.builds(
    Order,
    ago=ago,
    amount=st.sampled_from(["0.01", "10.00", "149.99", "150.00", "300.00", None]),
    cancelled_ago=st.none() | st.none() | st.none() | ago,
    known_customer=st.sampled_from([True] * 9 + [False]),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    histories=st.lists(st.lists(order, max_size=5), min_size=1, max_size=12),
    shops=st.sampled_from([1, 2]),
    zone=st.sampled_from(["UTC", "America/New_York", "Australia/Lord_Howe"]),
)
@example(
    histories=[[Order(30 * DAY)], [Order(90 * DAY)], [Order(180 * DAY)], [Order(0 * DAY)]],
    shops=1,
    zone="Europe/Berlin",
)
@example(
    histories=[[Order(30 * DAY - TICK)], [Order(180 * DAY - TICK)], [Order(TICK)]], shops=1, zone="America/New_York"
)
@example(
    histories=[[Order(40 * DAY), Order(130 * DAY)], [Order(40 * DAY), Order(130 * DAY - TICK)]], shops=1, zone="UTC"
)
@example(histories=[[Order(5 * DAY), Order(5 * DAY), Order(5 * DAY)]], shops=1, zone="UTC")
@example(histories=[[Order(331 * DAY)]], shops=1, zone="America/New_York")  # lapsed in the hour that comes twice
def test_features_of_any_history_equal_what_plain_python_finds(
    engine: Engine, histories: History, shops: int, zone: str
) -> None:
    with engine.connect() as conn:  # never committed: every example starts with an empty shop
        conn.execute(text("select set_config('timezone', :zone, true)"), {"zone": zone})
        ids = insert(conn, histories, shops)
        counts = audience.derive_features(conn, NOW, "run")
        # read in UTC: in Python an instant of the hour that comes twice equals none of another zone
        conn.execute(text("select set_config('timezone', 'UTC', true)"))
        found, wanted = features(conn), expected(histories, ids, shops, NOW)
        assert found.keys() == wanted.keys()
        for customer, row in wanted.items():
            gap = row.pop("median_gap_days")
            assert {key: found[customer][key] for key in row} == row
            assert found[customer]["median_gap_days"] == (
                None if gap is None else pytest.approx(Decimal(gap), abs=Decimal("2e-6"))
            )
        stages = [row["stage"] for row in wanted.values()]
        assert counts == {
            "customers": len(wanted),
            "orders": sum(row["frequency"] for row in wanted.values()),
            **{stage: stages.count(stage) for stage in ("new", "active", "at_risk", "lapsed")},
        }


# ---------------------------------------------------------------- single rules


@pytest.mark.parametrize(
    ("elapsed", "stage"),
    [
        (TICK, "new"),
        (30 * DAY - TICK, "new"),
        (30 * DAY, "active"),
        (90 * DAY - TICK, "active"),
        (90 * DAY, "at_risk"),
        (180 * DAY - TICK, "at_risk"),
        (180 * DAY, "lapsed"),
    ],
)
def test_a_stage_begins_at_the_exact_instant_of_its_threshold(conn: Connection, elapsed: timedelta, stage: str) -> None:
    [customer] = insert(conn, [[Order(elapsed)]])
    audience.derive_features(conn, NOW, "run")
    assert features(conn)[customer]["stage"] == stage


def test_an_order_placed_at_the_very_instant_does_not_count_yet(conn: Connection) -> None:
    insert(conn, [[Order(0 * DAY)]])
    assert audience.derive_features(conn, NOW, "run")["customers"] == 0
    assert audience.derive_features(conn, NOW + TICK, "run")["customers"] == 1


def test_an_order_counts_until_the_instant_it_is_cancelled(conn: Connection) -> None:
    [customer] = insert(conn, [[Order(200 * DAY), Order(5 * DAY, cancelled_ago=2 * DAY)]])
    audience.derive_features(conn, NOW - 2 * DAY - TICK, "run")
    assert features(conn)[customer]["stage"] == "active"
    audience.derive_features(conn, NOW - 2 * DAY, "run")
    row = features(conn)[customer]
    assert (row["stage"], row["frequency"], row["stage_since"]) == ("lapsed", 1, NOW - 20 * DAY)


def test_somebody_who_comes_back_after_a_lapse_is_active_since_that_order(conn: Connection) -> None:
    came_back = [Order(days * DAY) for days in (400, 50, 20)]
    never_away = [Order(days * DAY) for days in (300, 250, 180, 95, 9)]
    [back, steady] = insert(conn, [came_back, never_away])
    audience.derive_features(conn, NOW, "run")
    assert features(conn)[back]["stage_since"] == NOW - 50 * DAY
    assert (
        features(conn)[steady]["stage_since"] == NOW - 270 * DAY
    )  # 30 days after the first order, and without a break


def test_the_last_order_is_the_latest_that_counts_and_of_two_at_once_the_one_stored_later(conn: Connection) -> None:
    [customer] = insert(
        conn, [[Order(9 * DAY), Order(3 * DAY), Order(3 * DAY), Order(5 * DAY), Order(DAY, None), Order(-DAY)]]
    )
    audience.derive_features(conn, NOW, "run")
    stored = conn.execute(text("select order_id from orders order by order_id")).scalars().all()
    assert features(conn)[customer]["last_order_id"] == stored[2]


def test_loyalty_is_dated_by_the_order_that_crossed_either_threshold(conn: Connection) -> None:
    [by_orders, by_spend, not_yet] = insert(
        conn,
        [
            [Order(50 * DAY), Order(40 * DAY), Order(30 * DAY), Order(20 * DAY)],
            [Order(50 * DAY, "299.99"), Order(40 * DAY, "0.01"), Order(30 * DAY)],
            [Order(50 * DAY, "299.98"), Order(40 * DAY, "0.01")],
        ],
    )
    audience.derive_features(conn, NOW, "run")
    since = {customer: row["loyal_since"] for customer, row in features(conn).items()}
    assert since == {by_orders: NOW - 30 * DAY, by_spend: NOW - 40 * DAY, not_yet: None}


def test_thresholds_are_settings(conn: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    [customer] = insert(conn, [[Order(12 * DAY), Order(40 * DAY)]])
    own = {"new_days": 5, "active_days": 10, "at_risk_days": 20, "loyalty_orders": 2}
    monkeypatch.setattr(audience, "settings", lambda: postlude_settings().model_copy(update=own))
    audience.derive_features(conn, NOW, "run")
    row = features(conn)[customer]
    assert (row["stage"], row["stage_since"], row["next_stage_at"]) == ("at_risk", NOW - 2 * DAY, NOW + 8 * DAY)
    assert row["loyal_since"] == NOW - 12 * DAY


def test_thresholds_that_do_not_rise_are_refused(conn: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audience, "settings", lambda: Settings(active_days=20))  # type: ignore[call-arg]
    with pytest.raises(InputError, match="must rise, and are 30, 20, 180"):
        audience.derive_features(conn, NOW, "run")


# ---------------------------------------------------------------- running it again


def test_a_second_run_writes_nothing_and_a_changed_history_changes_only_its_customer(engine: Engine) -> None:
    def versions() -> dict[int, str]:
        with engine.connect() as conn:
            return {
                r.customer_id: f"{r.xmin} {r.ctid}"
                for r in conn.execute(text("select customer_id, xmin, ctid from customer_facts"))
            }

    with engine.begin() as conn:
        ids = insert(conn, [[Order(n * DAY)] for n in range(1, 12)])
        first = audience.derive_features(conn, NOW, "run")
    written = versions()
    with engine.begin() as conn:
        assert audience.derive_features(conn, NOW, "run") == first
    assert versions() == written
    with engine.begin() as conn:
        add_orders(conn, ids[0], [Order(2 * DAY, "0.01")])
        audience.derive_features(conn, NOW, "run")
    now = versions()
    changed = {ids.index(customer) for customer in now if now[customer] != written[customer]}
    assert changed == {0}  # the others may have fallen a quintile: only the borders are written
    with engine.connect() as conn:
        wanted = expected([[Order(n * DAY)] for n in range(1, 12)], ids, 1, NOW)
        # the buyer is now first in orders and spend; four others each fell a quintile
        fell = [n for n, c in enumerate(ids) if features(conn)[c]["m_score"] == wanted[c]["m_score"] - 1]
        assert fell == [3, 5, 7, 9]
    with engine.begin() as conn:  # no orders left: no row left
        conn.execute(text("update orders set cancelled_at = placed_at where customer_id = :c"), {"c": ids[0]})
        assert audience.derive_features(conn, NOW, "run")["customers"] == 10
        assert ids[0] not in features(conn)


def test_a_backfill_counts_without_touching_the_present(conn: Connection) -> None:
    insert(conn, [[Order(10 * DAY)], [Order(100 * DAY)]])
    audience.derive_features(conn, NOW, "today")
    before = features(conn), conn.execute(text("select as_of, run_id from feature_state")).all()
    counts = audience.derive_features(conn, NOW - 50 * DAY, "backfill", keep=False)
    assert counts == {"customers": 1, "orders": 1, "new": 0, "active": 1, "at_risk": 0, "lapsed": 0}
    assert (features(conn), conn.execute(text("select as_of, run_id from feature_state")).all()) == before
    assert before[1] == [(NOW, "today")]


def test_two_runs_at_once_wait_for_each_other_and_readers_do_not_wait(engine: Engine) -> None:
    with engine.begin() as conn:
        insert(conn, [[Order(10 * DAY)]])
    with engine.begin() as first, engine.connect() as second:
        audience.derive_features(first, NOW, "first")
        second.execute(text("set statement_timeout = '200ms'"))
        assert features(second) == {}  # the old state, at once
        second.rollback()
        second.execute(text("set statement_timeout = '200ms'"))
        with pytest.raises(Exception, match="statement timeout"):
            audience.derive_features(second, NOW, "second")
        second.rollback()
    with engine.begin() as third:
        assert audience.derive_features(third, NOW, "third")["customers"] == 1


# ---------------------------------------------------------------- real shops


def answers(folder: Path, name: str) -> dict[str, Any]:
    return json.loads((folder / f"{name}.json").read_text())


def rfm(conn: Connection, source: str) -> dict[str, tuple[int, int, Decimal]]:
    """recency, frequency, monetary (two decimals) by the shop's own name of the customer."""
    rows = conn.execute(
        text(
            "select source_customer_id, recency_days, frequency, monetary from public.customer_features"
            " where source = :s"
        ),
        {"s": source},
    )
    cent = Decimal("0.01")
    return {r[0]: (r[1], r[2], r[3].quantize(cent, ROUND_HALF_EVEN)) for r in rows}


def digest(found: dict[str, tuple[int, int, Decimal]]) -> str:
    lines = sorted(f"{customer},{r},{f},{m:.2f}" for customer, (r, f, m) in found.items())
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def only_source(conn: Connection) -> str:
    return conn.execute(text("select source_id from sources")).scalar_one()


def local_midnight(conn: Connection, day: str) -> datetime:
    """The first instant of a day on the clocks of the only shop."""
    return conn.execute(
        text("select local_instant(cast(:day as timestamp), time_zone) from sources"), {"day": day}
    ).scalar_one()


@pytest.fixture
def uci(uci_engine: Engine) -> Iterator[Connection]:
    with uci_engine.connect() as conn:  # rolled back: the loaded shop serves other tests too
        yield conn


@pytest.fixture
def olist(olist_engine: Engine) -> Iterator[Connection]:
    with olist_engine.connect() as conn:
        yield conn


@pytest.mark.real_data
def test_the_british_gift_shop_gives_the_published_figures(uci: Connection, real_data: Path) -> None:
    wanted = answers(real_data, "uci_year1_open")
    figures = wanted["rfm"]
    counts = audience.derive_features(uci, local_midnight(uci, wanted["as_of"]), "run")
    assert counts == {"customers": figures["customers"], "orders": figures["orders"], **figures["lifecycle_counts"]}
    assert counts["lapsed"] == figures["winback_candidates"]

    found = rfm(uci, only_source(uci))
    assert sum(m for _, _, m in found.values()) == pytest.approx(Decimal(str(figures["revenue"])), abs=Decimal("0.001"))
    repeaters = [f for _, f, _ in found.values() if f >= 2]
    assert len(repeaters) == figures["repeat_customers_frequency_ge_2"]
    assert median(r for r, _, _ in found.values()) == figures["median_recency_days"]
    assert median(f for _, f, _ in found.values()) == figures["median_frequency"]
    assert float(median(m for _, _, m in found.values())) == pytest.approx(figures["median_monetary"], abs=0.006)
    top = sorted(found.items(), key=lambda item: item[1][2], reverse=True)[:5]
    assert [[int(customer), float(m)] for customer, (_, _, m) in top] == figures["top5_by_monetary"]
    frequent = sorted(found.items(), key=lambda item: item[1][1], reverse=True)[:3]
    assert [[int(customer), f] for customer, (_, f, _) in frequent] == figures["max_frequency"]
    for customer, row in figures["spot"].items():
        assert [found[customer][0], found[customer][1], float(found[customer][2])] == row
    assert digest(found) == figures["sha256_of_sorted_lines_customer_recency_frequency_monetary"]


@pytest.mark.real_data
def test_looking_every_day_shows_the_published_lapses_of_each_day(uci: Connection, real_data: Path) -> None:
    wanted = answers(real_data, "uci_year1_open")["daily_lapse_entries"]
    segments = [s for s in audience.load_segments(postlude_settings().include / "segments") if s.id == "lapsed"]
    first = local_midnight(uci, min(wanted))
    audience.derive_features(uci, first, "before")
    audience.update_segments(uci, segments, first, "before")
    for day in sorted(wanted):
        end = local_midnight(uci, (date.fromisoformat(day) + DAY).isoformat())
        audience.derive_features(uci, end, day)
        audience.update_segments(uci, segments, end, day)
    zone = uci.execute(text("select time_zone from sources")).scalar_one()
    rows = uci.execute(
        text(
            "select cast(date(entered_at at time zone :zone) as text), count(*) from segment_memberships"
            " where segment_id = 'lapsed' and entered_at >= :first group by 1"
        ),
        {"zone": zone, "first": first},
    )
    assert dict(iter(rows)) == {day: count for day, count in wanted.items() if count}


@pytest.mark.real_data
def test_the_brazilian_marketplace_gives_the_published_figures(olist: Connection, real_data: Path) -> None:
    wanted = answers(real_data, "olist_3k_open")
    figures = wanted["rfm"]
    counts = audience.derive_features(olist, local_midnight(olist, wanted["as_of"]), "run")
    assert (counts["customers"], counts["orders"]) == (figures["customers"], figures["orders"])
    assert counts["lapsed"] == figures["winback_180d"]
    found = rfm(olist, only_source(olist))
    assert float(sum(m for _, _, m in found.values())) == pytest.approx(figures["monetary"], abs=0.01)
    assert median(r for r, _, _ in found.values()) == figures["median_recency_days"]
    assert float(median(m for _, _, m in found.values())) == pytest.approx(figures["median_monetary"], abs=0.006)
    gaps = olist.execute(text("select median_gap_days from customer_features where frequency = 2")).scalars().all()
    assert len(gaps) == figures["gaps"] == figures["repeat_customers"]
    assert float(median(gaps)) == pytest.approx(figures["median_gap_days"], abs=2e-6)
    for customer, amount in figures["top3"].items():
        assert float(found[customer][2]) == amount
    assert digest(found) == figures["sha256_of_sorted_lines_id_recency_frequency_monetary"]
