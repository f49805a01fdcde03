"""What passes each gate, and each kind of bad data that closes it."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy import Engine
from sqlalchemy.engine import URL

from gated_shop import HASH, NOW, Shop
from postlude import audience, intake, quality
from postlude.settings import Settings, settings
from postlude.sources import load_source


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
        (
            "update staging_toys_orders set source_order_id = null where source_order_id = 'o3'",
            "orders.source_order_id",
        ),
        ("update staging_toys_orders set currency = 'euro' where source_order_id = 'o3'", "orders.currency"),
        ("update staging_toys_orders set currency = null", "orders.currency"),
        ("update staging_toys_orders set placed_at = null where source_order_id = 'o3'", "orders.placed_at"),
        ("update staging_toys_orders set placed_at = '1970-01-01'", "orders.placed_days_ago"),
        ("update staging_toys_orders set placed_at = '2099-01-01'", "orders.placed_days_ago"),
        ("update staging_toys_orders set source_customer_id = null", "orders.known_customer"),
        ("update staging_toys_orders set cancelled_at = placed_at", "orders.cancelled"),
        ("update staging_toys_order_lines set quantity = null where source_order_id = 'o3'", "order_lines.quantity"),
        ("update staging_toys_order_lines set quantity = -quantity", "order_lines.quantity_of_many"),
        ("update staging_toys_order_lines set unit_price = 0", "order_lines.unit_price_of_many"),
        ("update staging_toys_order_lines set source_order_id = null", "order_lines.source_order_id"),
        (
            "update staging_toys_orders set problems = '{bad_date}' where length(source_order_id) = 4",
            "staged.refused_share",
        ),
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
    assert named in {f"{f['batch']}.{f['column']}" for f in row.failures}


def test_a_pull_of_one_cancelled_order_is_no_broken_feed(shop: Shop) -> None:
    shop.stage(orders=1)
    shop.do("update staging_toys_orders set cancelled_at = placed_at + interval '1 hour', source_customer_id = null")
    shop.do("update staging_toys_order_lines set quantity = -1, unit_price = 0")
    assert shop.check("orders").success


def test_the_message_says_how_many_rows_of_how_many(shop: Shop) -> None:
    shop.stage()
    shop.do("update staging_toys_order_lines set quantity = null where source_order_id in ('o3', 'o4')")
    assert "order_lines.quantity expect_column_values_to_not_be_null: 2 of 200 (expected: all rows)" in shop.closed(
        "orders"
    )
    (failure,) = shop.verdicts()[0].failures
    assert (failure["unexpected"], failure["of"], failure["severity"]) == (2, 200, "stop")


def test_refused_rows_do_not_count_against_the_values(shop: Shop) -> None:
    shop.stage(orders=2000)
    shop.do(
        "update staging_toys_orders set currency = '?', problems = '{bad_currency}' where source_order_id in ('o1', "
        "'o2')"
    )
    assert shop.check("orders").success


def test_a_handful_of_refused_rows_stops_no_small_delivery_but_all_of_them_do(shop: Shop) -> None:
    shop.stage(orders=10)
    shop.do("update staging_toys_orders set problems = '{bad_date}' where source_order_id <> 'o9'")
    assert shop.check("orders").success
    shop.do("update staging_toys_orders set problems = '{bad_date}'")
    assert "staged.refused_share" in shop.closed("orders")
    assert "[orders 10 rows, 10 refused; order_lines 10 rows, 0 refused; orders bad_date 10]" in shop.closed("orders")


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
    shop.do(
        "update staging_toys_orders set placed_at = cast(:now as timestamptz) + interval '2 days' where "
        "source_order_id = 'o1'"
    )
    with caplog.at_level(logging.WARNING):
        verdict = shop.check("orders")
    assert verdict.success and "orders.placed_days_ago" in verdict.lines("warn")[0]
    assert "orders.placed_days_ago" in caplog.text
    assert shop.verdicts()[0].failures[0]["severity"] == "warn"


def test_the_limit_of_refused_rows_is_a_setting(shop: Shop) -> None:
    shop.stage(orders=1000)
    shop.do("update staging_toys_orders set problems = '{bad_date}' where length(source_order_id) = 3")
    assert "staged.refused_share" in shop.closed("orders")
    generous = Settings(quarantine_share=0.2)  # type: ignore[call-arg]
    assert shop.check("orders", config=generous).success


@pytest.mark.real_data
def test_real_deliveries_pass_the_gates(shop: Shop, real_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Olist: orders without lines, payments by voucher, an order of a customer per purchase."""
    monkeypatch.setenv("POSTLUDE_REAL_DATA", str(real_data))
    source = load_source(settings().include / "sources" / "olist.yml")
    now = datetime(2019, 1, 1, tzinfo=UTC)
    with shop.engine.begin() as conn:
        intake.extract(conn, source, now, "run-1")
    verdict = shop.check("orders", subject="olist", now=now)
    assert verdict.success and verdict.metrics["staged"]["orders"] == {"rows": 3000, "refused": 0}
    with shop.engine.begin() as conn:
        intake.load(conn, source, now, "run-1")
        audience.derive_features(conn, now, "run-1")
    assert shop.check("features", now=now).metrics["rows"]["features"] > 2900


@pytest.mark.real_data
@pytest.mark.slow
def test_the_known_quirks_of_a_real_year_pass(shop: Shop, real_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """UCI: a fifth of the lines without a customer, cancellations, negative pieces, prices of 0, lines twice."""
    monkeypatch.setenv("POSTLUDE_REAL_DATA", str(real_data))
    source = load_source(settings().include / "sources" / "online_retail.yml")
    now = datetime(2010, 12, 10, tzinfo=UTC)
    with shop.engine.begin() as conn:
        intake.extract(conn, source, now, "run-1")
    verdict = shop.check("orders", subject="online_retail", now=now)
    assert verdict.success
    (totals,) = verdict.metrics["measured"]["totals"]
    assert 0 < totals["twice_share"] < 0.02 and 0 <= totals["negative_share"] < 0.01


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
        (
            "update customer_features set recency_days = 3 where customer_id = 9",
            "features.recency_days, days_since_last_order",
        ),
        ("update customer_features set frequency = 0 where customer_id = 1", "features.frequency"),
        ("update customer_features set monetary = null", "features.monetary"),
        ("update customer_features set monetary = -1 where customer_id = 1", "features.monetary"),
        ("update customer_features set monetary = 0", "features.monetary"),
        ("update customer_features set stage = 'asleep' where customer_id = 1", "features.stage"),
        ("update customer_features set stage = null where customer_id = 1", "features.stage"),
        ("update customer_features set r_score = 6 where customer_id = 1", "features.r_score"),
        ("update customer_features set m_score = 0 where customer_id = 1", "features.m_score"),
        ("update customer_features set median_gap_days = 4 where customer_id = 1", "features.gap_fits_frequency"),
        (
            "update customer_features set first_order_at = now() where customer_id = 1",
            "features.last_order_at, first_order_at",
        ),
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
    assert shop.check("features", now=NOW).success
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
    shop.do(
        "insert into sources (source_id, shop, kind, currency, time_zone) values ('books', 'Books', 'csv', 'EUR', "
        "'UTC')"
    )
    shop.do(
        "insert into customers (source_id, source_customer_id, known_at) select 'books', n, :now from "
        "generate_series(1, 900) as n"
    )
    shop.do(
        "insert into orders (source_id, source_order_id, customer_id, currency, placed_at, counted_at, "
        "counted_amount, known_at) "
        "select 'books', customer_id, customer_id, 'EUR', :now, :now, 9, :now from customers where source_id = 'books'"
    )
    shop.features(later)
    shop.do(
        "update customer_features as f set source_id = c.source_id from customers as c where c.customer_id = "
        "f.customer_id"
    )
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
        ("update messages set enrolment_id = (select enrolment_id from enrolments limit 1)", "planned.enrolment_id, "
            "step_id"),
        ("update customers set email = null where source_customer_id = 'p1'", "unreachable "
            "expect_table_row_count_to_equal: 1"),
        ("update customers set email = 'nobody' where source_customer_id = 'p1'", "unreachable"),
        ("update customers set marketplace = true where source_customer_id = 'p1'", "unreachable"),
        ("update enrolments set arm = 'holdout'", "unreachable expect_table_row_count_to_equal: 5"),
        ("delete from consents where customer_id = (select min(customer_id) from consents)", "unwanted "
            "expect_table_row_count_to_equal: 1"),
        ("update consents set topic = 'other'", "unwanted expect_table_row_count_to_equal: 5"),
        ("insert into consents select customer_id, channel, topic, false, at + interval '1 hour', 'unsubscribe', "
         "known_at from consents",
         "unwanted expect_table_row_count_to_equal: 5"),
        ("insert into suppressions (address, scope, reason, since) values ('p1@customers.example', 'marketing', "
         "'unsubscribed', "
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
    shop.do(
        "insert into suppressions (address, scope, reason, since) values ('p1@customers.example', 'all', "
        "'complained', :now)"
    )
    shop.do(
        "insert into consents select customer_id, channel, topic, false, at + interval '1 hour', 'unsubscribe', "
        ":now from consents "
        "limit 1"
    )
    assert shop.check("plan").success


def test_a_transactional_message_needs_no_consent_but_respects_a_full_suppression(shop: Shop) -> None:
    shop.plan()
    shop.do("update messages set kind = 'transactional'; delete from consents")
    shop.do(
        "insert into suppressions (address, scope, reason, since) values ('p1@customers.example', 'marketing', "
        "'manual', '2026-01-01')"
    )
    assert shop.check("plan").success
    shop.do(
        "insert into suppressions (address, scope, reason, since) values ('p2@customers.example', 'all', "
        "'hard_bounce', '2026-01-01')"
    )
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
        ("update messages set expires_at = handed_over_at - interval '1 minute' where state = 'sent'",
         "sent.expires_at, handed_over_at"),
        ("update messages set reason = null where state = 'skipped'", "not_sent.reason"),
        ("update messages set reason = 'because Ana said no' where state = 'skipped'", "not_sent.reason"),
        ("update messages set state = 'lost' where state = 'skipped'", "tally.messages, in_known_states"),
        ("update messages set state = 'scheduled' where state = 'skipped'", "tally.open_messages, not_finalized"),
        ("update messages set state = 'sending', finalized_at = null, "
         "claimed_at = cast(:now as timestamptz) - interval '31 minutes' "
         "where state = 'skipped'", "stuck expect_table_row_count_to_equal: 1"),
        ("insert into attempts select message_id, 2, worker, claimed_at, handed_over_at, settled_at, outcome "
         "from attempts",
         "accepted_twice expect_table_row_count_to_equal: 4"),
        ("delete from attempts", "unproven expect_table_row_count_to_equal: 4"),
        ("update messages set state = 'failed', reason = 'refused' where state = 'sent'",
         "unproven expect_table_row_count_to_equal: 4"),
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
        "update messages set state = 'sent', attempt = 1, "
        "handed_over_at = cast(:now as timestamptz) - interval '1 day', finalized_at = :now, content_hash = :hash",
        hash=HASH,
    )
    shop.do(
        "insert into events (event_id, message_id, kind, at, known_at, source) "
        "select gen_random_uuid(), message_id, 'bounced', :now, :now, 'smtp' from messages limit 30"
    )
    verdict = shop.check("events")
    assert verdict.success and len(verdict.lines("warn")) == 1 and "shares.bounced_share" in verdict.lines("warn")[0]
