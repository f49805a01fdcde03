"""The gates: what passes, what closes each of them, and that nothing but a complete evaluation opens one."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.engine import URL

from postlude import quality
from postlude.errors import GateClosed, InputError, Unavailable
from postlude.quality import evaluation, suites
from postlude.settings import Settings

NOW = datetime(2026, 3, 1, 6, 0, tzinfo=UTC)
CANARY = "kanarienvogel@customers.example"
HASH = "a" * 64

STAGING = {
    "orders": "source_order_id text, source_customer_id text, currency text, status text, placed_at timestamptz, "
    "cancelled_at timestamptz, problems text[]",
    "order_lines": "source_order_id text, line_no text, sku text, description text, quantity numeric, unit_price numeric, "
    "placed_at timestamptz, problems text[]",
    "customers": "source_customer_id text, email text, problems text[]",
}


class Shop:
    """Writes rows straight into a migrated database and asks gates about them."""

    def __init__(self, engine: Engine, url: URL) -> None:
        self.engine, self.url = engine, url
        self.do("insert into sources (source_id, shop, kind, currency, time_zone) values ('toys', 'Toys', 'csv', 'EUR', 'UTC')")

    def do(self, sql: str, **params: Any) -> Any:
        with self.engine.begin() as conn:
            result = conn.execute(text(sql), {"now": NOW, **params} if ":now" in sql else params)
            return result.all() if result.returns_rows else result.rowcount

    def check(self, gate: str, **more: Any) -> quality.Verdict:
        subject = {"orders": "toys", "plan": "hello"}.get(gate, "")
        return quality.check(self.url, gate, **{"subject": subject, "now": NOW, "run_id": "run-1", **more})

    def closed(self, gate: str, **more: Any) -> str:
        with pytest.raises(GateClosed) as error:
            self.check(gate, **more)
        return str(error.value)

    def verdicts(self) -> list[Any]:
        return self.do("select * from gate_results order by gate_result_id")

    # ------------------------------------------------------------ rows

    def stage(self, *entities: str, orders: int = 200) -> None:
        for entity in entities or ("orders", "order_lines"):
            self.do(f"create unlogged table staging_toys_{entity} ({STAGING[entity]})")
        if "orders" in entities or not entities:
            self.do(
                "insert into staging_toys_orders select 'o' || n, case when n % 5 > 0 then 'c' || n end, 'EUR', 'paid', "
                "cast(:now as timestamptz) - n * interval '1 hour', "
                "case when n % 50 = 0 then cast(:now as timestamptz) - n * interval '1 hour' end, "
                "case when n % 2 = 0 then cast('{}' as text[]) end from generate_series(1, :n) as n",
                n=orders,
            )
        if "order_lines" in entities or not entities:
            self.do(
                "insert into staging_toys_order_lines select 'o' || n, '1', 'sku' || n % 9, 'a thing', "
                "case when n % 40 = 0 then -1 else 2 end, case when n % 100 = 0 then 0 else 9.5 end, null, null "
                "from generate_series(1, :n) as n",
                n=orders,
            )

    def customers(self, number: int = 200, step: str = "1 day") -> None:
        """Customers with one counted order each, and the features that follow from it."""
        self.do(
            "insert into customers (source_id, source_customer_id, email, known_at) "
            "select 'toys', 'c' || n, 'c' || n || '@customers.example', :now from generate_series(1, :n) as n",
            n=number,
        )
        self.do(
            "insert into orders (source_id, source_order_id, customer_id, currency, placed_at, counted_at, counted_amount, known_at) "
            "select source_id, 'o' || customer_id, customer_id, 'EUR', at, at, 20, :now from ("
            "  select *, cast(:now as timestamptz) - customer_id * cast(:step as interval) as at from customers) as c",
            step=step,
        )
        self.features()

    def features(self, as_of: datetime = NOW) -> None:
        self.do("delete from customer_features")
        self.do(
            "insert into customer_features select customer_id, 'toys', counted_at, counted_at, order_id, days, 1, counted_amount, "
            "null, case when days < 30 then 'new' when days < 90 then 'active' when days < 180 then 'at_risk' else 'lapsed' end, "
            "counted_at, null, null, 1 + order_id % 5, 1 + order_id % 5, 1 + order_id % 5 from ("
            "  select *, cast(floor(extract(epoch from cast(:as_of as timestamptz) - counted_at) / 86400) as int) as days "
            "  from orders) as o",
            as_of=as_of,
        )
        self.do("delete from feature_state")
        self.do("insert into feature_state (as_of, run_id, computed_at) values (:as_of, 'run-1', :as_of)", as_of=as_of)

    def plan(self, number: int = 5, state: str = "held") -> None:
        """Treated enrolments with one message each, planned one hour ago, due tomorrow; consent given yesterday."""
        self.do(
            "insert into campaign_versions values ('hello', 'v1', cast(:definition as jsonb), :now)",
            definition=json.dumps({"topic": "news"}),
        )
        self.do(
            "insert into customers (source_id, source_customer_id, email, first_name, known_at) "
            "select 'toys', 'p' || n, 'p' || n || '@customers.example', 'Ana', :now from generate_series(1, :n) as n",
            n=number,
        )
        self.do(
            "insert into consents select customer_id, 'email', 'news', true, cast(:now as timestamptz) - interval '1 day', "
            "'opt_in', cast(:now as timestamptz) - interval '1 day' from customers"
        )
        self.do(
            "insert into enrolments (enrolment_id, campaign_id, version, customer_id, anchor_key, anchor_at, watch_from, enrolled_at, "
            "run_id) select gen_random_uuid(), 'hello', 'v1', customer_id, 'once', :now, :now, :now, 'run-1' from customers"
        )
        self.do(
            "insert into messages (message_id, enrolment_id, campaign_id, step_id, customer_id, kind, template, state, reason, due_at, "
            "send_at, expires_at, planned_at, run_id) select gen_random_uuid(), enrolment_id, 'hello', 'first', customer_id, "
            "'marketing', 'hello/first', cast(:state as text), case when :state = 'held' then 'awaiting_check' end, "
            "cast(:now as timestamptz) + interval '1 day', cast(:now as timestamptz) + interval '25 hours', "
            "cast(:now as timestamptz) + interval '3 days', cast(:now as timestamptz) - interval '1 hour', 'run-1' from enrolments",
            state=state,
        )

    def send(self) -> None:
        """Four of five planned messages were sent two hours ago, one was skipped."""
        self.plan(5, state="scheduled")
        self.do(
            "update messages set due_at = d.at, send_at = d.at, expires_at = d.at + interval '2 days', state = 'sent', attempt = 1, "
            "handed_over_at = d.at + interval '1 hour', finalized_at = d.at + interval '61 minutes', content_hash = :hash "
            "from (select cast(:now as timestamptz) - interval '3 hours' as at) as d",
            hash=HASH,
        )
        self.do(
            "update messages set state = 'skipped', reason = 'no_consent', attempt = 0, handed_over_at = null, content_hash = null "
            "where message_id = (select message_id from messages limit 1)"
        )
        self.do(
            "insert into attempts (message_id, attempt, worker, claimed_at, handed_over_at, settled_at, outcome) "
            "select message_id, 1, 'w1', handed_over_at, handed_over_at, finalized_at, 'accepted' from messages where state = 'sent'"
        )

    def hear(self) -> None:
        """One delivery report per sent message."""
        self.send()
        self.do(
            "insert into events (event_id, message_id, customer_id, kind, at, known_at, source) select gen_random_uuid(), "
            "message_id, customer_id, 'delivered', finalized_at, finalized_at, 'smtp' from messages where state = 'sent'"
        )

    def unguarded(self, table: str) -> None:
        """The table without its checks and not-nulls: what a gate is for when a constraint is missing."""
        for (name,) in self.do(
            "select conname from pg_constraint where conrelid = cast(:t as regclass) and contype = 'c'", t=table
        ):
            self.do(f'alter table {table} drop constraint "{name}"')
        for (name,) in self.do(
            "select attname from pg_attribute where attrelid = cast(:t as regclass) and attnum > 0 and attnotnull "
            "and not exists (select 1 from pg_index where indrelid = attrelid and indisprimary and attnum = any(indkey))",
            t=table,
        ):
            self.do(f"alter table {table} alter column {name} drop not null")


@pytest.fixture
def shop(engine: Engine, database: URL) -> Shop:
    return Shop(engine, database)


# ---------------------------------------------------------------- orders


def test_a_delivery_with_the_quirks_of_real_shops_passes(shop: Shop) -> None:
    shop.stage()
    verdict = shop.check("orders")
    assert verdict.success and verdict.failures == ()
    assert verdict.evaluated == quality.pinned()["orders"]["expectations"] > 20
    assert verdict.metrics["staged"] == {
        "orders": {"rows": 200, "refused": 0},
        "order_lines": {"rows": 200, "refused": 0},
    }


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        ("update staging_toys_orders set source_order_id = null where source_order_id = 'o3'", "orders.source_order_id"),
        ("update staging_toys_orders set currency = 'euro' where source_order_id = 'o3'", "orders.currency"),
        ("update staging_toys_orders set currency = null", "orders.currency"),
        ("update staging_toys_orders set placed_at = null where source_order_id = 'o3'", "orders.placed_at"),
        ("update staging_toys_orders set placed_at = '1970-01-01'", "orders.placed_days_ago"),
        ("update staging_toys_orders set placed_at = '2099-01-01'", "orders.placed_days_ago"),
        ("update staging_toys_orders set source_customer_id = null", "orders.source_customer_id"),
        ("update staging_toys_orders set cancelled_at = placed_at", "orders.cancelled"),
        ("update staging_toys_order_lines set quantity = null where source_order_id = 'o3'", "order_lines.quantity"),
        ("update staging_toys_order_lines set quantity = -quantity", "order_lines.quantity"),
        ("update staging_toys_order_lines set unit_price = 0", "order_lines.unit_price"),
        ("update staging_toys_order_lines set source_order_id = null", "order_lines.source_order_id"),
        ("update staging_toys_orders set problems = '{bad_date}' where length(source_order_id) = 4", "staged.refused_share"),
        ("update staging_toys_orders set problems = '{bad_date}'", "staged.refused_share"),
        ("truncate staging_toys_orders, staging_toys_order_lines", "staged.accepted"),
    ],
)
def test_a_bad_delivery_closes_the_orders_gate(shop: Shop, damage: str, named: str) -> None:
    shop.stage()
    assert shop.do(damage) != 0
    message = shop.closed("orders")
    assert message.startswith("gate orders is closed for toys: ") and f"{named} expect_" in message
    (row,) = shop.verdicts()
    assert not row.success and row.evaluated > 0
    assert f"{row.failures[0]['batch']}.{row.failures[0]['column']}" in {named} | {
        f"{f['batch']}.{f['column']}" for f in row.failures
    }


def test_the_message_says_how_many_rows_of_how_many(shop: Shop) -> None:
    shop.stage()
    shop.do("update staging_toys_order_lines set quantity = null where source_order_id in ('o3', 'o4')")
    assert "order_lines.quantity expect_column_values_to_not_be_null: 2 of 200 (expected: all rows)" in shop.closed("orders")
    (failure,) = shop.verdicts()[0].failures
    assert (failure["unexpected"], failure["of"], failure["severity"]) == (2, 200, "stop")


def test_refused_rows_do_not_count_against_the_values(shop: Shop) -> None:
    shop.stage(orders=2000)
    shop.do("update staging_toys_orders set currency = '?', problems = '{bad_currency}' where source_order_id in ('o1', 'o2')")
    assert shop.check("orders").success


def test_a_handful_of_refused_rows_stops_no_small_delivery_but_all_of_them_do(shop: Shop) -> None:
    shop.stage(orders=10)
    shop.do("update staging_toys_orders set problems = '{bad_date}' where source_order_id <> 'o9'")
    assert shop.check("orders").success
    shop.do("update staging_toys_orders set problems = '{bad_date}'")
    assert "staged.refused_share" in shop.closed("orders")
    assert "[orders 10 rows, 10 refused; order_lines 10 rows, 0 refused]" in shop.closed("orders")


def test_a_run_without_new_files_passes_only_when_it_says_so(shop: Shop) -> None:
    shop.stage(orders=0)
    assert "staged.accepted" in shop.closed("orders")
    assert shop.check("orders", minimum_rows=0).success


@pytest.mark.parametrize("only", ["orders", "order_lines", "customers"])
def test_a_source_may_deliver_some_entities_only(shop: Shop, only: str) -> None:
    shop.stage(only)
    if only == "customers":
        shop.do("insert into staging_toys_customers values ('c1', 'c1@customers.example', null)")
    verdict = shop.check("orders")
    assert list(verdict.metrics["staged"]) == [only] and verdict.evaluated == quality.pinned()["orders"]["expectations"]


def test_a_source_that_staged_nothing_at_all_is_no_good_delivery(shop: Shop) -> None:
    assert "staged.accepted" in shop.closed("orders")


def test_a_future_order_is_told_and_does_not_stop_the_load(shop: Shop, caplog: pytest.LogCaptureFixture) -> None:
    shop.stage(orders=50)
    shop.do("update staging_toys_orders set placed_at = cast(:now as timestamptz) + interval '2 days' where source_order_id = 'o1'")
    with caplog.at_level(logging.WARNING):
        verdict = shop.check("orders")
    assert verdict.success and "orders.placed_days_ago" in verdict.lines("warn")[0]
    assert "orders.placed_days_ago" in caplog.text
    assert shop.verdicts()[0].failures[0]["severity"] == "warn"


# ---------------------------------------------------------------- features


def test_features_that_follow_from_the_orders_pass(shop: Shop) -> None:
    shop.customers(240)
    verdict = shop.check("features")
    assert verdict.success and verdict.failures == ()
    stages = {row["stage"]: row["customers"] for row in verdict.metrics["mix"]}
    assert stages == {"new": 29, "active": 60, "at_risk": 90, "lapsed": 61}


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        ("update customer_features set recency_days = null where customer_id = 1", "features.recency_days"),
        ("update customer_features set recency_days = -1 where customer_id = 1", "features.recency_days"),
        ("update customer_features set recency_days = 3 where customer_id = 9", "features.recency_days, days_since_last_order"),
        ("update customer_features set frequency = 0 where customer_id = 1", "features.frequency"),
        ("update customer_features set monetary = null", "features.monetary"),
        ("update customer_features set monetary = -1 where customer_id = 1", "features.monetary"),
        ("update customer_features set monetary = 0", "features.monetary"),
        ("update customer_features set stage = 'asleep' where customer_id = 1", "features.stage"),
        ("update customer_features set stage = null where customer_id = 1", "features.stage"),
        ("update customer_features set r_score = 6 where customer_id = 1", "features.r_score"),
        ("update customer_features set m_score = 0 where customer_id = 1", "features.m_score"),
        ("update customer_features set median_gap_days = 4 where customer_id = 1", "features.gap_fits_frequency"),
        ("update customer_features set first_order_at = now() where customer_id = 1", "features.last_order_at, first_order_at"),
        ("delete from customer_features where customer_id = 1", "counts.customers, counted_customers"),
        ("delete from customer_features", "features expect_table_row_count"),
        ("delete from feature_state", "counts expect_table_row_count"),
        ("update feature_state set as_of = as_of + interval '1 hour'", "counts.age_hours"),
    ],
)
def test_wrong_features_close_the_gate(shop: Shop, damage: str, named: str) -> None:
    shop.customers(50)
    shop.unguarded("customer_features")
    assert shop.do(damage) > 0
    assert named in shop.closed("features")


def test_half_of_the_customers_gone_since_the_last_good_run_closes_the_gate(shop: Shop) -> None:
    shop.customers(240)
    assert shop.check("features", now=NOW - timedelta(0)).success
    later = NOW + timedelta(days=1)
    shop.do("delete from customer_features; delete from orders where customer_id > 120")
    shop.features(later)
    message = shop.closed("features", now=later)
    assert "drift.growth" in message and "counts.customers" not in message
    # a closed gate is no measure: the next run is still compared with the last good one
    assert "drift.growth" in shop.closed("features", now=later + timedelta(hours=1))


def test_a_stage_that_moves_by_more_than_twenty_points_closes_the_gate(shop: Shop) -> None:
    shop.customers(240)
    shop.check("features")
    shop.do("update orders set counted_at = counted_at - interval '100 days'")
    later = NOW + timedelta(days=1)
    shop.features(later)
    message = shop.closed("features", now=later)
    assert "drift.largest_move" in message and "drift.growth" not in message


def test_drift_is_measured_against_a_recent_run_and_per_source(shop: Shop) -> None:
    shop.customers(240)
    shop.check("features")
    shop.do("update orders set counted_at = counted_at - interval '100 days'")
    later = NOW + timedelta(days=20)
    shop.features(later)
    assert shop.check("features", now=later).success, "a run of three weeks ago is no measure"
    shop.do("insert into sources (source_id, shop, kind, currency, time_zone) values ('books', 'Books', 'csv', 'EUR', 'UTC')")
    shop.do("insert into customers (source_id, source_customer_id, known_at) select 'books', n, :now from generate_series(1, 900) as n")
    shop.do(
        "insert into orders (source_id, source_order_id, customer_id, currency, placed_at, counted_at, counted_amount, known_at) "
        "select 'books', customer_id, customer_id, 'EUR', :now, :now, 9, :now from customers where source_id = 'books'"
    )
    shop.features(later)
    shop.do("update customer_features as f set source_id = c.source_id from customers as c where c.customer_id = f.customer_id")
    assert shop.check("features", now=later + timedelta(hours=1)).success, "a new shop has no past"


# ---------------------------------------------------------------- plan


@pytest.mark.parametrize("state", ["held", "scheduled"])
def test_a_sound_plan_passes(shop: Shop, state: str) -> None:
    shop.plan(state=state)
    verdict = shop.check("plan")
    assert verdict.success and verdict.metrics["rows"] == {"planned": 5, "unreachable": 0, "unwanted": 0}


def test_an_empty_plan_is_legal(shop: Shop) -> None:
    assert shop.check("plan").metrics["rows"]["planned"] == 0


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        ("update messages set expires_at = due_at", "planned.expires_at, due_at"),
        ("update messages set send_at = due_at - interval '1 minute'", "planned.send_at, due_at"),
        ("update messages set template = null", "planned.template"),
        ("update messages set kind = 'spam'", "planned.kind"),
        ("update messages set due_at = due_at + interval '3 years', send_at = send_at + interval '3 years', "
         "expires_at = expires_at + interval '3 years'", "planned.days_ahead"),
        ("update messages set enrolment_id = (select enrolment_id from enrolments limit 1)", "planned.enrolment_id, step_id"),
        ("update customers set email = null where source_customer_id = 'p1'", "unreachable expect_table_row_count_to_equal: 1"),
        ("update customers set email = 'nobody' where source_customer_id = 'p1'", "unreachable"),
        ("update customers set marketplace = true where source_customer_id = 'p1'", "unreachable"),
        ("update enrolments set arm = 'holdout'", "unreachable expect_table_row_count_to_equal: 5"),
        ("delete from consents where customer_id = (select min(customer_id) from consents)", "unwanted expect_table_row_count_to_equal: 1"),
        ("update consents set topic = 'other'", "unwanted expect_table_row_count_to_equal: 5"),
        ("insert into consents select customer_id, channel, topic, false, at + interval '1 hour', 'unsubscribe', known_at from consents",
         "unwanted expect_table_row_count_to_equal: 5"),
        ("insert into suppressions (address, scope, reason, since) values ('p1@customers.example', 'marketing', 'unsubscribed', "
         "'2026-01-01')", "unwanted expect_table_row_count_to_equal: 1"),
    ],
)  # fmt: skip
def test_a_wrong_plan_closes_the_gate(shop: Shop, damage: str, named: str) -> None:
    shop.plan()
    shop.unguarded("messages")
    shop.do("alter table messages drop constraint messages_enrolment_id_step_id_key")
    assert shop.do(damage) > 0
    assert named in shop.closed("plan")


def test_what_became_known_after_planning_is_left_to_the_hand_over(shop: Shop) -> None:
    shop.plan()
    shop.do("insert into suppressions (address, scope, reason, since) values ('p1@customers.example', 'all', 'complained', :now)")
    shop.do(
        "insert into consents select customer_id, channel, topic, false, at + interval '1 hour', 'unsubscribe', :now from consents "
        "limit 1"
    )
    assert shop.check("plan").success


def test_a_transactional_message_needs_no_consent_but_respects_a_full_suppression(shop: Shop) -> None:
    shop.plan()
    shop.do("update messages set kind = 'transactional'; delete from consents")
    shop.do("insert into suppressions (address, scope, reason, since) values ('p1@customers.example', 'marketing', 'manual', '2026-01-01')")
    assert shop.check("plan").success
    shop.do("insert into suppressions (address, scope, reason, since) values ('p2@customers.example', 'all', 'hard_bounce', '2026-01-01')")
    assert "unwanted expect_table_row_count_to_equal: 1" in shop.closed("plan")


def test_the_plan_of_another_campaign_is_not_looked_at(shop: Shop) -> None:
    shop.plan()
    shop.do("delete from consents")
    assert shop.check("plan", subject="other").success


# ---------------------------------------------------------------- deliveries and events


def test_a_ledger_that_adds_up_passes(shop: Shop) -> None:
    assert shop.check("deliveries").success, "nothing sent yet"
    shop.send()
    verdict = shop.check("deliveries")
    assert verdict.success and verdict.metrics["rows"]["sent"] == 4 and verdict.metrics["rows"]["not_sent"] == 1


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        ("update messages set handed_over_at = null where state = 'sent'", "sent.handed_over_at"),
        ("update messages set attempt = 0 where state = 'sent'", "sent.attempt"),
        ("update messages set content_hash = null where state = 'sent'", "sent.content_hash"),
        ("update messages set content_hash = 'x' where state = 'sent'", "sent.content_hash"),
        ("update messages set finalized_at = null where state = 'sent'", "sent.finalized_at"),
        ("update messages set expires_at = handed_over_at - interval '1 minute' where state = 'sent'", "sent.expires_at, handed_over_at"),
        ("update messages set reason = null where state = 'skipped'", "not_sent.reason"),
        ("update messages set reason = 'because Ana said no' where state = 'skipped'", "not_sent.reason"),
        ("update messages set state = 'lost' where state = 'skipped'", "tally.messages, in_known_states"),
        ("update messages set state = 'scheduled' where state = 'skipped'", "tally.open_messages, not_finalized"),
        ("update messages set state = 'sending', finalized_at = null, claimed_at = cast(:now as timestamptz) - interval '31 minutes' "
         "where state = 'skipped'", "stuck expect_table_row_count_to_equal: 1"),
        ("insert into attempts select message_id, 2, worker, claimed_at, handed_over_at, settled_at, outcome from attempts",
         "accepted_twice expect_table_row_count_to_equal: 4"),
        ("delete from attempts", "unproven expect_table_row_count_to_equal: 4"),
        ("update messages set state = 'failed', reason = 'refused' where state = 'sent'", "unproven expect_table_row_count_to_equal: 4"),
    ],
)  # fmt: skip
def test_a_ledger_that_contradicts_itself_closes_the_gate(shop: Shop, damage: str, named: str) -> None:
    shop.send()
    shop.unguarded("messages")
    assert shop.do(damage) > 0
    assert named in shop.closed("deliveries")


def test_a_claim_within_its_lease_is_work_in_progress(shop: Shop) -> None:
    shop.send()
    shop.do(
        "update messages set state = 'sending', reason = null, finalized_at = null, claimed_by = 'w', attempt = 1, "
        "claimed_at = cast(:now as timestamptz) - interval '10 minutes' where state = 'skipped'"
    )
    assert shop.check("deliveries").success


def test_sound_events_pass(shop: Shop) -> None:
    assert shop.check("events").success, "nothing heard yet"
    shop.hear()
    assert shop.check("events").metrics["rows"] == {"events": 4, "orphans": 0, "shares": 0}


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        ("update events set kind = 'vanished'", "events.kind"),
        ("update events set at = null", "events.at"),
        ("update events set known_at = null", "events.known_at"),
        ("update events set at = known_at + interval '11 minutes'", "events.latest_at, at"),
        ("update events set message_id = null, customer_id = null", "events.has_subject"),
        ("update events set message_id = gen_random_uuid()", "orphans expect_table_row_count_to_equal: 4"),
        ("update events set message_id = (select message_id from messages where state = 'skipped')",
         "orphans expect_table_row_count_to_equal: 4"),
    ],
)  # fmt: skip
def test_impossible_events_close_the_gate(shop: Shop, damage: str, named: str) -> None:
    shop.hear()
    shop.unguarded("events")
    shop.do("alter table events drop constraint events_message_id_fkey")
    assert shop.do(damage) > 0
    assert named in shop.closed("events")


def test_a_high_share_of_bounces_is_told(shop: Shop) -> None:
    shop.plan(300, state="scheduled")
    shop.do(
        "update messages set state = 'sent', attempt = 1, handed_over_at = cast(:now as timestamptz) - interval '1 day', "
        "finalized_at = :now, content_hash = :hash",
        hash=HASH,
    )
    shop.do(
        "insert into events (event_id, message_id, kind, at, known_at, source) select gen_random_uuid(), message_id, 'bounced', "
        ":now, :now, 'smtp' from messages limit 30"
    )
    verdict = shop.check("events")
    assert verdict.success and len(verdict.lines("warn")) == 1 and "shares.bounced_share" in verdict.lines("warn")[0]


# ---------------------------------------------------------------- it fails closed


def test_every_suite_in_the_code_is_the_pinned_one() -> None:
    assert quality.current() == quality.pinned(), "review the change of a suite, then: python -m postlude.quality --pin"
    assert set(quality.pinned()) == {"orders", "features", "plan", "deliveries", "events"}


@pytest.fixture
def altered(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Replaces the batches of the gate `plan`."""

    def alter(batches: tuple[suites.Batch, ...]) -> None:
        monkeypatch.setitem(suites.GATES, "plan", replace(suites.PLAN, batches=batches))

    return alter


def test_an_empty_suite_closes_the_gate(shop: Shop, altered: Callable[..., None]) -> None:
    altered(())
    message = shop.closed("plan")
    assert "suite_is_not_empty" in message and "enough_was_evaluated" in message and "suite_is_the_pinned_one" in message


def test_a_thinned_suite_closes_the_gate(shop: Shop, altered: Callable[..., None]) -> None:
    first, *others = suites.PLAN.batches
    altered((replace(first, expectations=first.expectations[:-1]), *others))
    message = shop.closed("plan")
    assert "suite_is_the_pinned_one" in message and "enough_was_evaluated: 19 (expected: >= 20)" in message


def test_a_loosened_limit_and_a_softened_severity_close_the_gate(shop: Shop, altered: Callable[..., None]) -> None:
    first, *others = suites.PLAN.batches
    for last in (suites.between("days_ahead", None, 4000), replace(first.expectations[-1], severity="warn")):
        altered((replace(first, expectations=(*first.expectations[:-1], last)), *others))
        assert "suite_is_the_pinned_one" in shop.closed("plan")


def test_without_the_file_of_pins_every_gate_is_closed(shop: Shop, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(quality, "_pins", lambda: tmp_path / "gates.json")
    assert "suite_is_the_pinned_one" in shop.closed("plan")
    (tmp_path / "gates.json").write_text("[not json")
    assert "suite_is_the_pinned_one" in shop.closed("plan")


def test_a_suite_of_which_a_part_is_not_evaluated_closes_the_gate(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    real = evaluation._expectation
    dropped = suites.PLAN.batches[0].expectations[-1]

    def forgetful(expect: suites.Expect, number: int, values: Any) -> Any:
        return real(suites.rows() if expect is dropped else expect, 99 if expect is dropped else number, values)

    monkeypatch.setattr(evaluation, "_expectation", forgetful)
    message = shop.closed("plan")
    assert "planned.days_ahead expect_column_values_to_be_between: was not evaluated" in message
    assert "enough_was_evaluated: 19" in message


def test_an_error_inside_great_expectations_closes_the_gate(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError(f"could not judge {CANARY}")

    monkeypatch.setattr(evaluation, "_expectation", broken)
    message = shop.closed("plan")
    assert "evaluated_without_error: RuntimeError" in message and CANARY not in message
    assert shop.verdicts()[0].evaluated == 0


def test_a_missing_column_closes_the_gate_and_is_named(shop: Shop) -> None:
    shop.stage()
    shop.do("alter table staging_toys_order_lines drop column unit_price")
    message = shop.closed("orders")
    assert 'UndefinedColumn: column "unit_price" does not exist' in message
    (row,) = shop.verdicts()
    assert row.evaluated < quality.pinned()["orders"]["expectations"]


def test_a_column_of_the_wrong_type_closes_the_gate_without_quoting_a_value(shop: Shop) -> None:
    shop.stage()
    shop.do("alter table staging_toys_order_lines alter column quantity type text")
    shop.do("update staging_toys_order_lines set quantity = :canary", canary=CANARY)
    message = shop.closed("orders")
    assert "order_lines" in message and CANARY not in message and CANARY not in str(shop.verdicts())


def test_a_gate_that_is_not_done_in_time_is_closed(shop: Shop) -> None:
    shop.plan()
    with shop.engine.begin() as other:
        other.execute(text("lock table messages in access exclusive mode"))
        started = time.monotonic()
        message = shop.closed("plan", limit=timedelta(seconds=2))
        assert time.monotonic() - started < 60
    assert "QueryCanceled" in message or "finished_in_time" in message
    assert not shop.verdicts()[0].success


def test_a_great_expectations_that_hangs_is_left_behind(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    release = threading.Event()
    monkeypatch.setattr(evaluation, "_evaluate", lambda *_: release.wait(60))
    try:
        assert "finished_in_time: not finished within 0.5 s" in shop.closed("plan", limit=timedelta(seconds=0.5))
    finally:
        release.set()


def test_a_verdict_that_cannot_be_kept_opens_nothing(shop: Shop) -> None:
    shop.do("drop table gate_results")
    with pytest.raises(Exception, match="gate_results"):
        shop.check("plan")
    with pytest.raises(Unavailable):
        quality.check(shop.url.set(database="no_such_database"), "plan", subject="hello", now=NOW, run_id="r")


def test_the_gate_can_only_read(shop: Shop, altered: Callable[..., None], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        evaluation, "literal", lambda *_: "select setval(pg_get_serial_sequence('customers', 'customer_id'), 9) as n"
    )
    assert "ReadOnlySqlTransaction" in shop.closed("plan")


def test_an_unknown_gate_or_subject_is_a_mistake_of_the_caller(shop: Shop) -> None:
    with pytest.raises(InputError, match="there is no gate"):
        shop.check("weather")
    for gate, subject in (("orders", ""), ("features", "toys"), ("orders", 'x"; drop table messages')):
        with pytest.raises(InputError, match=f"gate {gate} needs"):
            shop.check(gate, subject=subject)


# ---------------------------------------------------------------- verdicts, Data Docs, people's data


def test_a_verdict_is_kept_even_when_the_gate_closes(shop: Shop, tmp_path: Path) -> None:
    shop.stage(orders=0)
    shop.closed("orders", docs=tmp_path)
    shop.check("orders", minimum_rows=0, docs=tmp_path, run_id="run-2")
    bad, good = shop.verdicts()
    assert (bad.gate, bad.subject, bad.run_id, bad.as_of, bad.success) == ("orders", "toys", "run-1", NOW, False)
    assert good.success and good.failures == [] and good.suite_hash == bad.suite_hash == quality.pinned()["orders"]["hash"]
    assert Path(bad.docs) == tmp_path / "orders" / "run-1.toys" / "index.html"
    assert Path(good.docs).is_file()


def test_a_verdict_counts_while_it_is_fresh_and_its_suite_is_still_in_force(
    shop: Shop, conn: Connection, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hours = timedelta(hours=6)
    assert not quality.latest(conn, "plan", "hello", NOW, hours), "no verdict is no permission"
    shop.check("plan")
    assert quality.latest(conn, "plan", "hello", NOW + hours, hours)
    assert not quality.latest(conn, "plan", "hello", NOW + hours + timedelta(seconds=1), hours), "too old"
    assert not quality.latest(conn, "plan", "hello", NOW - hours, hours), "not known yet"
    assert not quality.latest(conn, "plan", "other", NOW, hours)
    shop.plan()
    shop.do("delete from consents")
    shop.closed("plan", now=NOW + timedelta(hours=1))
    assert not quality.latest(conn, "plan", "hello", NOW + timedelta(hours=2), hours), "the newest verdict holds"
    assert quality.latest(conn, "plan", "hello", NOW, hours), "as of then it was open"
    monkeypatch.setattr(quality, "_pins", lambda: tmp_path / "gates.json")
    assert not quality.latest(conn, "plan", "hello", NOW, hours)


def test_data_docs_show_counts_and_ask_no_foreign_host(shop: Shop, tmp_path: Path) -> None:
    shop.stage()
    shop.do("update staging_toys_orders set currency = 'euro' where source_order_id = 'o3'")
    message = shop.closed("orders", docs=tmp_path, run_id="scheduled__2026-03-01T06:00:00+00:00")
    folder = tmp_path / "orders" / "scheduled__2026-03-01T06-00-00-00-00.toys"
    assert str(folder / "index.html") in message
    assert sorted(page.name for page in folder.iterdir()) == ["index.html", "order_lines.html", "orders.html", "staged.html"]
    index, page = ((folder / name).read_text() for name in ("index.html", "orders.html"))
    assert "expect_column_values_to_match_regex" in index and "<td>1</td><td>200</td>" in index
    assert "1 unexpected values found" in page and "must match this regular expression" in page
    for content in (index, page):
        assert not any(mark in content for mark in ("<script", "<link", "<img", "src=", "@import", "url("))
        assert "http" not in content


def test_data_docs_that_cannot_be_written_do_not_hold_good_data(shop: Shop, tmp_path: Path) -> None:
    (tmp_path / "plan").write_text("a file where a folder should be")
    verdict = shop.check("plan", docs=tmp_path)
    assert verdict.success and verdict.docs is None


def test_no_persons_data_leaves_the_database(
    shop: Shop, tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """A canary in every column a failing expectation looks at: it must be in no page, log, output, message or verdict."""
    shop.stage(orders=20)
    for column in ("source_order_id", "source_customer_id", "currency"):
        shop.do(f"update staging_toys_orders set {column} = :canary", canary=CANARY)
    shop.do("update staging_toys_order_lines set sku = :canary, source_order_id = null, unit_price = null", canary=CANARY)
    shop.hear()
    for table in ("messages", "events"):
        shop.unguarded(table)
    shop.do("alter table events drop constraint events_message_id_fkey")
    shop.do("update customers set email = :canary, first_name = :canary", canary=CANARY)
    shop.do("update messages set reason = :canary, kind = :canary, content_hash = :canary, template = :canary", canary=CANARY)
    shop.do("update events set kind = :canary, source = :canary, message_id = null, customer_id = null", canary=CANARY)
    shop.do(
        "insert into messages (message_id, enrolment_id, campaign_id, step_id, customer_id, kind, template, due_at, send_at, expires_at, "
        "planned_at, run_id) select gen_random_uuid(), enrolment_id, 'hello', :canary, customer_id, :canary, :canary, :now, :now, "
        ":now, :now, 'r' from messages",
        canary=CANARY,
    )
    caplog.set_level(logging.DEBUG)
    told = [shop.closed(gate, docs=tmp_path) for gate in ("orders", "plan", "deliveries", "events")]
    out, err = capfd.readouterr()
    pages = [page.read_text(errors="replace") for page in tmp_path.rglob("*") if page.is_file()]
    assert len(pages) > 10
    kept = str(shop.do("select cast(g as text) from gate_results as g"))
    names = " ".join(str(path) for path in tmp_path.rglob("*"))
    for where in (*told, *pages, caplog.text, out, err, kept, names):
        assert "kanarienvogel" not in where.lower()


def test_great_expectations_is_silent_in_the_log(shop: Shop, tmp_path: Path) -> None:
    script = (
        "import logging, sys; logging.basicConfig(level=logging.DEBUG, stream=sys.stdout)\n"
        "from datetime import datetime, UTC; from sqlalchemy.engine import make_url; from postlude import quality\n"
        "assert 'great_expectations' not in sys.modules and 'pandas' not in sys.modules\n"
        f"url = make_url({shop.url.render_as_string(hide_password=False)!r})\n"
        "quality.check(url, 'plan', subject='hello', now=datetime(2026, 3, 1, tzinfo=UTC), run_id='r')\n"
        "import os; assert os.environ['GX_ANALYTICS_ENABLED'] == 'false'"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stdout.splitlines() if "quality" not in line] == []
    assert len(done.stdout.splitlines()) == 1 and done.stderr == ""


def test_the_table_of_gates_in_the_docs_is_the_one_of_the_code() -> None:
    page = Path(__file__).resolve().parents[1] / "docs" / "gates.md"
    assert quality.table_of_gates() in page.read_text(encoding="utf-8")


def test_the_limit_of_refused_rows_is_a_setting(shop: Shop) -> None:
    shop.stage(orders=1000)
    shop.do("update staging_toys_orders set problems = '{bad_date}' where length(source_order_id) = 3")
    assert "staged.refused_share" in shop.closed("orders")
    generous = Settings(quarantine_share=0.2)  # type: ignore[call-arg]
    assert shop.check("orders", config=generous).success


@pytest.fixture(autouse=True)
def _quiet_threads() -> Iterator[None]:
    yield
