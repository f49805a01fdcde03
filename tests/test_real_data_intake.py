"""The two public data sets give, straight from the loaded orders, the figures of the independent reference answers."""

from __future__ import annotations

import hashlib
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text
from sqlalchemy.engine import URL

from postlude.sources import load_source
from realdata import OLIST_LOADED, SOURCES, UCI_LOADED, ingest

pytestmark = pytest.mark.real_data

# customers and what they bought, as of an instant
RFM = """
    select c.source_customer_id,
        cast(floor(extract(epoch from cast(:as_of as timestamptz) - max(o.counted_at)) / 86400) as int),
        count(*), cast(round(sum(o.counted_amount), 2) as float)
    from orders as o join customers as c using (customer_id)
    where o.counted_at < :as_of and (o.cancelled_at is null or o.cancelled_at > :as_of)
    group by 1 order by 1
"""


def figures(conn: Connection, sql: str, **params: Any) -> dict[str, Any]:
    return dict(conn.execute(text(sql), params).mappings().one())


def tally(conn: Connection, sql: str) -> dict[str, int]:
    return {key: count for key, count in conn.execute(text(sql))}


def per_day(conn: Connection, sql: str, days: dict[str, int]) -> dict[str, int]:
    found = tally(conn, sql)
    return {day: found.get(day, 0) for day in days}


@pytest.fixture
def uci(real_data: Path) -> dict[str, Any]:
    return json.loads((real_data / "uci_year1_open.json").read_text())


@pytest.fixture
def olist(real_data: Path) -> dict[str, Any]:
    return json.loads((real_data / "olist_3k_open.json").read_text())


# ---------------------------------------------------------------- UCI Online Retail II, year one


def test_uci_customers_orders_and_revenue_are_those_of_the_reference(uci_engine: Engine, uci: dict[str, Any]) -> None:
    with uci_engine.connect() as conn:
        rows = conn.execute(text(RFM), {"as_of": UCI_LOADED}).all()
    expected = uci["rfm"]
    assert len(rows) == expected["customers"] == 4312
    assert sum(row[2] for row in rows) == expected["orders"] == 19213
    assert round(sum(row[3] for row in rows), 2) == expected["revenue"] == 8832003.26
    assert sum(row[2] >= 2 for row in rows) == expected["repeat_customers_frequency_ge_2"]
    by_customer = {row[0]: list(row[1:]) for row in rows}
    for customer, (recency, frequency, monetary) in expected["spot"].items():
        assert by_customer[customer] == [recency, frequency, pytest.approx(monetary, abs=0.01)]


def test_uci_quality_counts_are_those_of_the_reference(uci_engine: Engine, uci: dict[str, Any]) -> None:
    with uci_engine.connect() as conn:
        found = figures(
            conn,
            """
            select
                count(*) as rows,
                count(*) filter (where o.customer_id is null) as missing_customers,
                count(*) filter (where l.description is null) as missing_descriptions,
                count(distinct l.order_id) as invoices,
                count(distinct l.sku) as articles,
                count(*) filter (where o.cancelled_at is not null) as cancellation_rows,
                count(distinct l.order_id) filter (where o.cancelled_at is not null) as cancellations,
                count(*) filter (where l.quantity <= 0) as no_quantity,
                count(*) filter (where l.quantity < 0 and o.cancelled_at is null) as negative_not_cancelled,
                count(*) filter (where l.unit_price = 0) as free,
                count(*) filter (where l.unit_price < 0) as negative_price,
                count(*) - count(distinct (order_id, sku, description, quantity, l.placed_at, unit_price)) as twice,
                count(*) filter (where l.description <> btrim(l.description)) as blanks,
                min(l.placed_at) as first, max(l.placed_at) as last,
                cast(sum(l.quantity * l.unit_price) as float) as total
            from order_lines as l join orders as o using (order_id)""",
        )
        customers = conn.scalar(text("select count(*) from customers"))
        spanning = conn.scalar(
            text("""select count(*) from (
                select from order_lines group by order_id having count(distinct placed_at) > 1) as o""")
        )
    expected = uci["data_quality"]
    assert found == {
        "rows": expected["rows"],
        "missing_customers": expected["missing_CustomerID"],
        "missing_descriptions": expected["missing_Description"],
        "invoices": expected["distinct_InvoiceNo"],
        "articles": expected["distinct_StockCode"],
        "cancellation_rows": expected["cancellation_rows_InvoiceNo_startswith_C"],
        "cancellations": expected["cancellation_invoices"],
        "no_quantity": expected["qty_le_0_rows"],
        "negative_not_cancelled": expected["qty_lt_0_and_not_cancellation"],
        "free": expected["price_eq_0_rows"],
        "negative_price": expected["price_lt_0_rows"],
        "twice": expected["exact_duplicate_rows_beyond_first"],
        "blanks": expected["rows_Description_with_leading_or_trailing_whitespace"],
        "first": datetime.fromisoformat(expected["min_InvoiceDate"] + "+00:00"),
        "last": datetime.fromisoformat(expected["max_InvoiceDate"] + "+00:00"),
        "total": pytest.approx(expected["sum_Quantity_times_UnitPrice"], abs=0.01),
    }
    assert customers == expected["distinct_CustomerID"]
    assert spanning == expected["invoices_spanning_more_than_one_InvoiceDate"]


def test_uci_known_quirks_load_whole_and_without_anything_quadratic(
    uci_loaded: tuple[URL, dict[str, int], float], uci_engine: Engine
) -> None:
    _, counts, seconds = uci_loaded
    assert counts["rows_read"] == counts["order_lines"] == 525_461
    assert counts["rows_quarantined"] == 0
    assert seconds < 120  # about 15 on two idle cores; a guard, not a benchmark
    with uci_engine.connect() as conn:
        assert conn.scalar(text("select complete_until from sources")) == datetime.fromisoformat(
            "2010-12-09 20:01:00+00:00"
        )
        ids = conn.scalars(text("select source_customer_id from customers order by customer_id")).all()
        assert ids == sorted(ids)
        assert conn.scalar(text("select count(*) from consents where basis = 'soft_opt_in' and granted")) == 4383


def test_uci_delivered_again_under_another_name_changes_nothing(
    uci_engine: Engine, real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "uci_online_retail_ii"
    folder.mkdir()
    (folder / "again.csv.gz").symlink_to(real_data / "uci_online_retail_ii" / "online_retail_2009_2010.csv.gz")
    monkeypatch.setenv("POSTLUDE_REAL_DATA", str(tmp_path))
    counts = ingest(uci_engine, load_source(SOURCES / "online_retail.yml"), UCI_LOADED, "second")
    assert set(counts.values()) == {0}


# ---------------------------------------------------------------- Olist


def test_olist_customers_orders_and_payments_are_those_of_the_reference(
    olist_engine: Engine, olist: dict[str, Any]
) -> None:
    as_of = datetime.fromisoformat(olist["as_of"] + "+00:00")
    with olist_engine.connect() as conn:
        rows = conn.execute(text(RFM), {"as_of": as_of}).all()
    expected = olist["rfm"]
    assert len(rows) == expected["customers"] == 2411
    assert sum(row[2] for row in rows) == expected["orders"] == 2416
    assert round(sum(row[3] for row in rows), 2) == expected["monetary"] == 370768.83
    assert sum(row[1] >= 180 for row in rows) == expected["winback_180d"]
    by_customer = {row[0]: row[3] for row in rows}
    assert {customer: by_customer[customer] for customer in expected["top3"]} == expected["top3"]


def test_olist_tables_are_whole(olist_engine: Engine, olist: dict[str, Any]) -> None:
    with olist_engine.connect() as conn:
        found = figures(
            conn,
            """
            select (select count(*) from orders) as orders, (select count(*) from order_lines) as order_items,
                (select count(*) from reviews) as reviews, (select count(*) from products) as products,
                (select count(*) from customers) as people, (select count(*) from quarantine) as refused""",
        )
        states = tally(conn, "select status, count(*) from orders group by 1")
        categories = tally(
            conn,
            """
            select p.category, count(*) from order_lines as l join orders as o using (order_id)
            join products as p using (source_id, sku) where o.status = 'delivered' group by 1""",
        )
    rows = olist["data_quality"]["rows"]
    assert found == {
        **{name: rows[name] for name in ("orders", "order_items", "reviews", "products")},
        "people": olist["data_quality"]["distinct_customer_unique_id"],
        "refused": 0,
    }
    assert states == olist["data_quality"]["status_counts"]
    top = olist["top_categories"]
    assert {category: categories[category] for category in top} == top


def test_olist_late_deliveries_and_feedback_days_are_those_of_the_reference(
    olist_engine: Engine, olist: dict[str, Any]
) -> None:
    delivered = "from orders as o join shipments as s using (order_id) where o.status = 'delivered'"
    with olist_engine.connect() as conn:
        late = figures(
            conn,
            f"""select count(*) as delivered,
                count(*) filter (where cast(s.delivered_at as date) > o.promised_on) as late {delivered}""",
        )
        due = per_day(
            conn,
            f"select cast(cast(s.delivered_at as date) + 30 as text), count(*) {delivered} group by 1",
            olist["feedback_due"],
        )
        reviewed = conn.scalar(
            text(f"""
            select count(*) from (
                select min(r.answered_at) as answered, cast(s.delivered_at as date) + 30 as day
                from orders as o join shipments as s using (order_id) join reviews as r using (order_id)
                where o.status = 'delivered' group by o.order_id, s.delivered_at) as f
            where f.day between '{olist["month"]}' and '2018-03-31' and f.answered < f.day""")
        )
        shipped = per_day(
            conn,
            "select cast(cast(shipped_at as date) as text), count(*) from shipments group by 1",
            olist["shippings"],
        )
        placed = per_day(
            conn,
            "select cast(cast(placed_at as date) as text), count(*) from orders group by 1",
            olist["confirmations"],
        )
    assert late == {
        "delivered": olist["late"]["delivered_orders_with_date"],
        "late": olist["late"]["late_by_calendar_date"],
    }
    assert late["late"] == 191
    assert due == olist["feedback_due"]
    assert reviewed == olist["feedback_suppressed_by_existing_review"]
    assert shipped == olist["shippings"]
    assert placed == olist["confirmations"]


def test_olist_order_states_as_of_june_are_those_of_the_reference(olist_engine: Engine, olist: dict[str, Any]) -> None:
    as_of = datetime.fromisoformat(olist["as_of"] + "+00:00")
    with olist_engine.connect() as conn:
        found = figures(
            conn,
            """
            with states as (
                select o.promised_on, case
                    when s.delivered_at < :as_of then 'delivered'
                    when s.shipped_at < :as_of then 'in_transit'
                    when o.paid_at < :as_of then 'approved_not_shipped'
                    else 'not_yet_approved' end as state
                from orders as o left join shipments as s using (order_id) where o.placed_at < :as_of
            )
            select count(*) as known_orders,
                count(*) filter (where state = 'not_yet_approved') as not_yet_approved,
                count(*) filter (where state = 'approved_not_shipped') as approved_not_shipped,
                count(*) filter (where state = 'in_transit') as in_transit,
                count(*) filter (where state = 'delivered') as delivered,
                count(*) filter (
                    where state = 'in_transit' and promised_on < cast(:as_of as date)) as in_transit_past_estimate
            from states""",
            as_of=as_of,
        )
    assert found == olist["state_as_of"]


def test_olist_with_one_corrected_table_is_read_again_as_a_whole_and_changes_only_what_was_corrected(
    olist_engine: Engine, real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import gzip

    folder = tmp_path / "olist_3k"
    folder.mkdir()
    for path in (real_data / "olist_3k").iterdir():
        (folder / path.name).symlink_to(path)
    payments = folder / "olist_order_payments_dataset.csv.gz"
    rows = gzip.decompress(payments.read_bytes()).decode().splitlines(keepends=True)
    order, *_, value = rows[1].strip().split(",")
    payments.unlink()
    payments.write_bytes(gzip.compress("".join([rows[0], rows[1].replace(value, "1.00"), *rows[2:]]).encode()))
    monkeypatch.setenv("POSTLUDE_REAL_DATA", str(tmp_path))
    counts = ingest(olist_engine, load_source(SOURCES / "olist.yml"), OLIST_LOADED, "second")
    assert counts["orders"] == 1
    assert (
        sum(counts[name] for name in ("customers", "consents", "products", "order_lines", "shipments", "reviews")) == 0
    )
    with olist_engine.connect() as conn:
        paid = conn.scalar(text("select counted_amount from orders where source_order_id = :order"), {"order": order})
        assert float(paid or 0) == 1.0
        assert (
            hashlib.sha256(payments.read_bytes()).hexdigest() in conn.scalars(text("select checksum from loads")).all()
        )
