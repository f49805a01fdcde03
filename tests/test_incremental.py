"""Features and memberships brought up to date from what changed equal those made from scratch, whatever happened before."""

from __future__ import annotations

import random
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, Engine, text

from postlude import audience, identities
from postlude.errors import InputError
from postlude.settings import settings as postlude_settings
from test_features import DAY, NOW, TICK, Order, add_orders, features, insert
from test_segments import history, segment

SEGMENTS = [
    *audience.load_segments(postlude_settings().include / "segments"),
    segment("quiet", "{feature: recency_days, at_least: 60}", "last_order_at"),
    segment("soon", "{feature: next_stage_at, before: in 9 days}"),
    segment("wholesale", "{not: {all: [{feature: frequency, less_than: 3}, {feature: monetary, less_than: 290}]}}"),
    segment("steady", "{feature: median_gap_days, at_most: 40}"),
]
SHOPS = 2


class Shop:
    """Six customers of two shops, and what may happen to their orders."""

    def __init__(self, conn: Connection) -> None:
        self.conn, self.now = conn, NOW
        self.customers = insert(conn, [[Order(200 * DAY)], [Order(50 * DAY), Order(20 * DAY)], [], [], [], []], SHOPS)

    def do(self, statement: str, **params: Any) -> None:
        self.conn.execute(text(statement), params)

    def loads(self, customer: int, ago: timedelta, amount: str | None, cancelled: timedelta | None) -> None:
        """An order as intake stores it: first the order, then when and for how much it counts."""
        at = NOW - self.now + ago  # `ago` counts from the shop's present
        gone = None if cancelled is None else NOW - self.now + cancelled
        order = Order(at, amount, gone)
        add_orders(self.conn, self.customers[customer], [order], f"shop{customer % SHOPS}")

    def changes(self, nth: int, how: str, ago: timedelta) -> None:
        found = self.conn.execute(text("select order_id from orders order by order_id")).scalars().all()
        one = {"o": found[nth % len(found)]} if found else {"o": 0}
        if how == "cancel":
            self.do("update orders set cancelled_at = :at where order_id = :o", at=self.now - ago, **one)
        elif how == "revive":
            self.do("update orders set cancelled_at = null where order_id = :o", **one)
        elif how == "redate":
            self.do("update orders set counted_at = :at where order_id = :o and counted_at is not null",
                    at=self.now - ago, **one)  # fmt: skip
        elif how == "dearer":
            self.do("update orders set counted_amount = counted_amount + 100 where order_id = :o", **one)
        elif how == "uncount":
            self.do("update orders set counted_at = null, counted_amount = null where order_id = :o", **one)
        elif how == "delete":
            self.do("delete from orders where order_id = :o", **one)
        elif how == "other customer":
            self.do("update orders set customer_id = :c where order_id = :o", c=self.customers[nth % 6], **one)
        elif how in ("merge", "split"):
            one_person(self.conn, how, self.customers[nth % 6], self.customers[nth // 6 % 6], self.now)
        else:
            self.do("update customers set source_id = case source_id when 'shop0' then 'shop1' else 'shop0' end"
                    " where customer_id = :c", c=self.customers[nth % 6])  # fmt: skip

    def look(self, full: bool) -> list[Any]:
        if full:
            self.do("update feature_state set segments = null")
        counts = audience.derive_features(self.conn, self.now, "run", full=full)
        counts |= audience.update_segments(self.conn, SEGMENTS, self.now, "run")
        sizes = self.conn.execute(text("select * from segment_sizes order by 1, 2")).all()
        assert wrong_scores(self.conn) == []
        return [counts, features(self.conn), history(self.conn), sizes]


def one_person(conn: Connection, how: str, kept: int, merged: int, now: datetime) -> None:
    """Two records are found to be one person, or told apart again; nothing where they already are."""
    try:
        if how == "merge":
            identities.merge(conn, kept, merged, now, rule="hand", by="Ana", why="the same loyalty card")
        else:
            identities.split(conn, merged, now, by="Ana", why="two people")
    except InputError:
        pass


def wrong_scores(conn: Connection) -> list[Any]:
    """Customers whose scores are not what ntile(5) gives, ties by customer id."""
    statement = """
        select * from (
            select customer_id, r_score, f_score, m_score,
                ntile(5) over (partition by source_id order by recency_days desc, customer_id) as r,
                ntile(5) over (partition by source_id order by frequency, customer_id) as f,
                ntile(5) over (partition by source_id order by monetary, customer_id) as m
            from customer_features
        ) as scored where (r_score, f_score, m_score) is distinct from (r, f, m)"""
    return list(conn.execute(text(statement)).all())


moments = st.one_of(
    st.sampled_from([d * DAY + e * TICK for d in (-40, -1, 0, 1, 29, 30, 60, 89, 90, 179, 180) for e in (-1, 0, 1)]),
    st.timedeltas(min_value=-40 * DAY, max_value=300 * DAY),
)
loads = st.tuples(
    st.just("loads"),
    st.integers(0, 5),
    moments,
    st.sampled_from(["0.01", "10.00", "149.99", "300.00", None]),
    st.none() | st.none() | moments,
)
hows = ["cancel", "revive", "redate", "dearer", "uncount", "delete", "other customer", "other shop", "merge", "split"]
changes = st.tuples(st.just("changes"), st.integers(0, 35), st.sampled_from(hows), moments)
steps = st.tuples(
    st.just("clock"),
    st.sampled_from([timedelta(0), TICK, DAY, DAY, DAY - TICK, 9 * DAY, 30 * DAY, 100 * DAY, -DAY, -35 * DAY])
    | st.timedeltas(min_value=timedelta(0), max_value=40 * DAY),
)
derives = st.tuples(st.just("derive"))


happenings = st.lists(st.one_of(loads, loads, changes, steps, steps, derives), min_size=1, max_size=14)
unhurried = {"deadline": None, "suppress_health_check": [HealthCheck.function_scoped_fixture]}


def compare(engine: Engine, happened: list[Any]) -> None:
    """Live through it; at each step of the clock, look both ways from the same state."""
    with engine.connect() as conn:  # never committed: every example starts with an empty shop
        shop = Shop(conn)
        shop.look(full=False)
        for what, *more in [*happened, ("clock", DAY)]:
            if what == "clock":
                shop.now += more[0]
                with conn.begin_nested() as trial:
                    wanted = shop.look(full=True)
                    trial.rollback()
                assert shop.look(full=False) == wanted
            elif what == "derive":  # the gate closed after it: the segments look later
                audience.derive_features(conn, shop.now, "run")
            else:
                getattr(shop, what)(*more)


@settings(max_examples=8, **unhurried)
@given(happened=happenings)
def test_bringing_features_up_to_date_ends_where_starting_from_scratch_does(
    engine: Engine, happened: list[Any]
) -> None:
    compare(engine, happened)


@pytest.mark.slow
@settings(max_examples=150, **unhurried)
@given(happened=happenings)
def test_it_does_so_for_many_more_histories(engine: Engine, happened: list[Any]) -> None:
    compare(engine, happened)


@pytest.mark.parametrize("seed", range(3))
def test_the_fifths_stay_exact_while_a_shop_of_ninety_lives(engine: Engine, seed: int) -> None:
    """Many at once order, cancel, become one person and are told apart: the borders move by that, and are never off by one."""
    chance = random.Random(seed)
    with engine.connect() as conn:
        ids = insert(conn, [[Order(chance.randrange(300) * DAY / 4)] * chance.randrange(4) for _ in range(90)], SHOPS)
        audience.derive_features(conn, NOW, "run")
        for day in range(1, 26):
            now = NOW + day * DAY / 2
            for customer in chance.sample(ids, chance.choice([0, 1, 5, 30])):
                what = chance.choice(["order", "order", "cancel", "dearer", "other shop", "merge", "split"])
                if what == "order":
                    back = chance.choice([TICK, DAY / 3, DAY, chance.randrange(90) * DAY])
                    bought = Order(NOW - now + back, chance.choice(["5.00", "10.00"]))
                    add_orders(conn, customer, [bought] * chance.choice([1, 1, 3]))
                elif what in ("merge", "split"):
                    one_person(conn, what, chance.choice(ids), customer, now)
                else:
                    change = {
                        "cancel": "update orders set cancelled_at = :now where customer_id = :c",
                        "dearer": "update orders set counted_amount = counted_amount + 5 where customer_id = :c",
                        "other shop": "update customers set source_id = case source_id when 'shop0' then 'shop1' else 'shop0' end"
                        " where customer_id = :c and cast(:now as timestamptz) is not null",
                    }[what]
                    conn.execute(text(change), {"c": customer} | ({"now": now} if ":now" in change else {}))
            audience.derive_features(conn, now, "run", full=day == 20)
            assert wrong_scores(conn) == [], f"day {day}"
            assert conn.scalar(text("select count(*) from facts_changed")) == 0


def test_setting_the_borders_reads_what_changed_and_not_everybody(conn: Connection) -> None:
    """Two thousand customers, one of whom orders: the index is walked by a step, not from its beginning."""
    ids = insert(conn, [[]])
    conn.execute(
        text("""insert into customers (source_id, source_customer_id, known_at)
                select 'shop0', 'n' || n, :now from generate_series(1, 2000) as n"""),
        {"now": NOW},
    )
    conn.execute(
        text("""insert into orders (source_id, source_order_id, customer_id, currency, placed_at, known_at, counted_at, counted_amount)
                select 'shop0', customer_id, customer_id, 'EUR', at, at, at, customer_id from customers,
                lateral (select :now - customer_id * interval '1 hour' as at) as t"""),
        {"now": NOW},
    )
    audience.derive_features(conn, NOW, "run")
    conn.execute(text("analyze customer_facts"))

    def read() -> int:
        """Entries of the three indexes over customer_facts that this transaction has read."""
        return int(
            conn.scalar(
                text("""select sum(pg_stat_get_xact_tuples_returned(indexrelid)) from pg_index
                        where indrelid = cast('customer_facts' as regclass)
                            and cast(cast(indexrelid as regclass) as text) ~ '(recency|frequency|monetary)'""")
            )
            or 0
        )

    add_orders(conn, ids[0], [Order(DAY / 2)])
    before = read()
    audience.derive_features(conn, NOW + TICK, "run")
    some = read() - before
    audience.derive_features(conn, NOW + TICK, "run", full=True)
    everybody = read() - before - some
    assert some < 300 < 3000 < everybody


def derived_anew(conn: Connection, now: datetime) -> int:
    """How many customers one derivation looked at."""
    conn.execute(text("delete from moved_customers"))
    audience.derive_features(conn, now, "run")
    return int(conn.scalar(text("select count(*) from moved_customers")) or 0)


def test_only_whose_orders_changed_and_whom_time_moves_are_derived_anew(conn: Connection) -> None:
    [ana, *_] = insert(conn, [[Order(days * DAY)] for days in (200, 89, 50, 10, 3)])
    audience.derive_features(conn, NOW, "run")
    assert derived_anew(conn, NOW) == 0
    add_orders(conn, ana, [Order(DAY), Order(-5 * DAY)])
    assert derived_anew(conn, NOW) == 1
    assert derived_anew(conn, NOW + DAY) == 1  # 89 days become 90
    assert derived_anew(conn, NOW + 2 * DAY) == 0
    assert derived_anew(conn, NOW + 5 * DAY) == 1  # the order dated ahead is reached
    assert features(conn)[ana]["frequency"] == 2
    assert derived_anew(conn, NOW + 5 * DAY + TICK) == 1
    assert features(conn)[ana]["frequency"] == 3


@pytest.mark.parametrize("reason", ["asked for", "earlier instant", "other thresholds", "unknown state", "truncated"])
def test_everybody_is_derived_anew_where_the_last_state_cannot_be_built_upon(
    conn: Connection, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    [ana, ben] = insert(conn, [[Order(200 * DAY)], [Order(40 * DAY)]])
    audience.derive_features(conn, NOW, "run")
    conn.execute(text("update customer_facts set frequency = 7"))  # a difference only a full derivation finds
    now = NOW
    if reason == "earlier instant":
        now = NOW - DAY
    elif reason == "other thresholds":
        monkeypatch.setattr(audience, "settings", lambda: postlude_settings().model_copy(update={"active_days": 35}))
    elif reason == "unknown state":
        conn.execute(text("update feature_state set rules = null"))
    elif reason == "truncated":
        conn.execute(text("truncate orders cascade"))
    audience.derive_features(conn, now, "run", full=reason == "asked for")
    found = {customer: row["frequency"] for customer, row in features(conn).items()}
    assert found == ({} if reason == "truncated" else {ana: 1, ben: 1})


def test_a_load_that_commits_during_a_derivation_is_taken_by_the_next(engine: Engine) -> None:
    with engine.begin() as conn:
        [ana] = insert(conn, [[Order(40 * DAY)]])
        audience.derive_features(conn, NOW, "run")
    with engine.begin() as load, engine.begin() as derive:
        add_orders(load, ana, [Order(DAY)])
        audience.derive_features(derive, NOW, "run")
    with engine.begin() as conn:
        assert features(conn)[ana]["frequency"] == 1
        audience.derive_features(conn, NOW, "run")
        assert features(conn)[ana]["frequency"] == 2
