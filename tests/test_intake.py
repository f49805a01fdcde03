"""Orders come in once, whole and checked; what is wrong is refused with its reason."""

from __future__ import annotations

import gzip
import itertools
import json
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import duckdb
import pytest
from sqlalchemy import Engine, text

from cornershop import MAPPING, NOW, Shop
from postlude.errors import GateClosed


@pytest.fixture
def shop(engine: Engine, tmp_path: Path) -> Shop:
    return Shop(engine, tmp_path)


# ---------------------------------------------------------------- what comes in


def test_a_delivery_becomes_customers_orders_lines_and_parcels(shop: Shop) -> None:
    shop.deliver("people", "c1,ann@customers.example,Europe/London", "c2,,Mars/North")
    shop.deliver(
        "sales", "o1,c1,2026-11-01 10:00:00,,,", "o2,c2,2026-11-02T10:00:00Z,,2026-11-03 10:00,EUR", "o3,,2026-07-01,,,"
    )
    shop.deliver("positions", "o1,tea,2,3.50", "o1,cup,1,8", "o2,tea,-1,3.50", "o3,tea,1,1")
    shop.deliver("parcels", "o1,2026-11-02 08:00:00,")
    counts = shop.ingest()
    assert counts == dict.fromkeys(counts, 0) | {
        "files": 4, "rows_read": 10, "rows_loaded": 10, "customers": 2, "orders": 3, "order_lines": 4, "shipments": 1,
    }  # fmt: skip
    assert shop.ask("select source_customer_id, address, time_zone from customers order by customer_id") == [
        ("c1", "ann@customers.example", "Europe/London"),
        ("c2", None, None),  # no such zone: the shop's will do
    ]
    # times without offset are the shop's own; winter in Berlin is one hour ahead of UTC, summer two
    assert shop.ask("""
        select source_order_id, to_char(placed_at, 'MM-DD HH24:MI'), currency, cancelled_at is not null,
            to_char(counted_at, 'MM-DD HH24:MI'), cast(counted_amount as float)
        from orders order by source_order_id""") == [
        ("o1", "11-01 09:00", "EUR", False, "11-01 09:00", 15.0),
        ("o2", "11-02 10:00", "EUR", True, None, None),  # nothing was bought
        ("o3", "06-30 22:00", "EUR", False, None, None),  # nobody bought it
    ]
    assert shop.ask("select complete_until from sources") == [(datetime(2026, 11, 2, 10, tzinfo=UTC),)]
    assert shop.everything()["tables"] == []


def test_files_that_overtake_each_other_in_one_delivery_take_no_date_away(shop: Shop) -> None:
    shop.mapping.write_text(
        MAPPING.replace("as delivered_at from parcels", "as delivered_at, _file, _line from parcels")
    )
    shop.deliver("people", "c1,,")
    shop.deliver("sales", "o1,c1,2026-11-01 10:00:00,,,")
    shop.deliver("positions", "o1,tea,2,3.50")
    shop.deliver("parcels1", "o1,2026-11-02 08:00:00,2026-11-04 09:00:00")
    shop.deliver("parcels2", "o1,2026-11-02 08:00:00,")  # written before it arrived, read after
    shop.ingest()
    assert shop.ask("select delivered_at from shipments") == [(datetime(2026, 11, 4, 8, tzinfo=UTC),)]


def test_the_same_files_again_change_nothing_whatever_they_are_called(shop: Shop) -> None:
    shop.deliver("people", "c1,,")
    sales = shop.deliver("sales", "o1,c1,2026-11-01 10:00:00,,,")
    shop.deliver("positions", "o1,tea,2,3.50")
    shop.ingest()
    before = shop.everything()
    sales.rename(sales.with_name("sales2.csv"))
    assert set(shop.ingest().values()) == {0}
    assert shop.everything() == before


def test_identical_lines_in_one_file_are_real_and_the_same_lines_in_a_later_file_count_once(shop: Shop) -> None:
    shop.deliver("sales1", "o1,,2026-11-01 10:00:00,,,")
    shop.deliver("positions1", "o1,tea,2,3.50", "o1,tea,2,3.50", "o1,cup,1,8.00")
    assert shop.ingest()["order_lines"] == 3
    shop.deliver("sales2", "o1,,2026-11-01 10:00:00,,,", "o2,,2026-11-02 10:00:00,,,")
    shop.deliver("positions2", "o1,tea,2.0,3.5", "o1,cup,1,8", "o1,tea,2,3.50", "o1,tea,2,3.50", "o2,tea,1,3.50")
    counts = shop.ingest()
    assert (counts["orders"], counts["order_lines"]) == (1, 2)  # o2, its line, and a third tea nobody had told of
    assert shop.ask("select count(*) from order_lines") == [(5,)]


def test_overlapping_files_of_one_run_count_each_line_once(shop: Shop) -> None:
    shop.deliver("sales1", "o1,,2026-11-01 10:00:00,,,", "o2,,2026-11-02 10:00:00,,,")
    shop.deliver("sales2", "o2,,2026-11-02 10:00:00,,,", "o3,,2026-11-03 10:00:00,,,")
    shop.deliver("positions1", "o1,tea,1,1", "o2,tea,1,1", "o2,tea,1,1")
    shop.deliver("positions2", "o2,tea,1,1", "o2,tea,1,1", "o3,tea,1,1")
    counts = shop.ingest()
    assert (counts["orders"], counts["order_lines"], counts["rows_quarantined"]) == (3, 4, 0)


VERSIONS = {
    1: ("o1,,2026-11-01 10:00:00,2026-11-01 10:00:00,,", ("o1,tea,2,3.50", "o1,cup,1,8")),
    2: ("o1,,2026-11-01 10:00:00,2026-11-02 10:00:00,,", ("o1,tea,2,3.50",)),
    3: ("o1,,2026-11-01 10:00:00,2026-11-03 10:00:00,,", ("o1,tea,1,3.50",)),
    4: ("o1,,2026-11-01 10:00:00,2026-11-04 10:00:00,2026-11-04 09:00:00,", ("o1,tea,1,3.50",)),
}
FINAL = ([(datetime(2026, 11, 4, 8, tzinfo=UTC), 3.5)], [("tea", 1.0)])


def _final(shop: Shop) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    return (
        shop.ask("select cancelled_at, cast(counted_amount as float) from orders"),
        shop.ask("select sku, cast(quantity as float) from order_lines order by 1"),
    )


@pytest.mark.parametrize("sequence", list(itertools.permutations([1, 2, 3, 4]))[::5])
def test_versions_of_an_order_end_in_the_newest_in_whatever_sequence_they_come(
    shop: Shop, sequence: tuple[int, ...]
) -> None:
    shop.deliver("people", "c1,,")
    for number in sequence:
        order, lines = VERSIONS[number]
        shop.deliver(f"sales{number}", order.replace("o1,,", "o1,c1,"))
        shop.deliver(f"positions{number}", *lines)
        shop.ingest()
    assert _final(shop) == FINAL


def test_versions_of_an_order_in_one_run_end_in_the_newest_with_its_lines(shop: Shop) -> None:
    # one row per line with the order's facts repeated, as many shops export
    shop.yaml.write_text(
        shop.yaml.read_text().replace("cancelled, currency]", "cancelled, currency, article, pieces, price]")
    )
    lines = (
        "select no as source_order_id, article as sku, pieces as quantity, price as unit_price, _file, _line from sales"
    )
    orders, _, parcels = MAPPING.partition("-- entity: order_lines\n")
    orders = orders.replace("select no as", "select distinct on (no, _file) no as")
    shop.mapping.write_text(
        f"{orders}-- entity: order_lines\n{lines}\n-- entity: shipments{parcels.partition('shipments')[2]}"
    )
    shop.deliver("people", "c1,,")
    for number in (3, 1, 4, 2):
        order, positions = VERSIONS[number]
        rows = [order.replace("o1,,", "o1,c1,") + "EUR" + line.removeprefix("o1") for line in positions]
        path = shop.deliver(f"sales{number}", *rows)
        path.write_text(path.read_text().replace("currency", "currency,article,pieces,price"))
    counts = shop.ingest()
    assert (counts["orders"], counts["order_lines"], counts["rows_quarantined"]) == (1, 1, 0)
    assert _final(shop) == FINAL


def test_two_runs_at_once_load_everything_once(shop: Shop) -> None:
    shop.deliver("sales", *(f"o{n},,2026-11-01 10:00:00,,," for n in range(300)))
    shop.deliver("positions", *(f"o{n},tea,1,1" for n in range(300)))
    start = threading.Barrier(2)
    counts: list[dict[str, int]] = []

    def run() -> None:
        start.wait()
        counts.append(shop.ingest())

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(count["orders"] for count in counts) == [0, 300]
    assert shop.ask("select count(*), count(distinct source_order_id) from orders") == [(300, 300)]
    assert shop.ask("select count(*) from order_lines") == [(300,)]


def test_a_soft_opt_in_never_speaks_after_the_person_did(shop: Shop) -> None:
    shop.mapping.write_text(
        MAPPING + "-- entity: consents\nselect customer as source_customer_id, 'marketing' as topic, true as granted, "
        "at, 'soft_opt_in' as basis from sales where customer is not null\n"
    )
    shop.deliver("people", "c1,,", "c2,,")
    shop.deliver("sales1", "o1,c1,2026-11-01 10:00:00,,,")
    assert shop.ingest()["consents"] == 1
    with shop.engine.begin() as conn:
        conn.execute(
            text("""
            insert into consents
            select customer_id, channel, topic, false, '2026-11-02 10:00+00', 'unsubscribe', now() from consents""")
        )
    shop.deliver("sales2", "o2,c1,2026-11-03 10:00:00,,,", "o3,c2,2026-11-03 10:00:00,,,")
    assert shop.ingest()["consents"] == 1
    assert shop.ask("""
        select distinct on (customer_id) source_customer_id, granted from consents join customers using (customer_id)
        order by customer_id, at desc""") == [("c1", False), ("c2", True)]


@pytest.mark.parametrize("form", ["csv.gz", "jsonl", "jsonl.gz", "parquet", "cp1252"])
def test_the_form_of_a_file_does_not_matter(shop: Shop, form: str) -> None:
    rows = [("c1", "zoé@customers.example", None), ("c2", 'a"b,c\n@customers.example', "UTC"), ("c3", None, "")]
    path = shop.folder / "in" / f"people.{form}"
    if form == "parquet":
        duckdb.sql(
            "select * from (values "
            + ", ".join(f"({', '.join('null' if v is None else duck(v) for v in row)})" for row in rows)
            + ") as t (id, mail, zone)"
        ).write_parquet(str(path))
    elif form.startswith("jsonl"):
        lines = "".join(
            json.dumps(dict(zip(("id", "mail", "zone"), row, strict=True)), ensure_ascii=False) + "\n" for row in rows
        )
        path.write_bytes(gzip.compress(lines.encode()) if form.endswith("gz") else lines.encode())
    else:
        quoted = "\r\n".join(",".join('"' + (v or "").replace('"', '""') + '"' for v in row) for row in rows)
        content = f"id,mail,zone\r\n{quoted}\r\n"
        if form == "cp1252":
            path = path.with_suffix(".csv")
            shop.yaml.write_text(shop.yaml.read_text().replace("zone]\n", "zone]\n    encoding: cp1252\n"))
            path.write_bytes(content.encode("cp1252"))
        else:
            path.write_bytes(gzip.compress(("\ufeff" + content).encode()))
    shop.deliver("sales", "o1,c1,2026-11-01 10:00:00,,,")
    assert shop.ingest()["customers"] == 3
    assert shop.ask("select source_customer_id, email, time_zone from customers order by 1") == [
        ("c1", "zoé@customers.example", None), ("c2", 'a"b,c\n@customers.example', "UTC"), ("c3", None, None),
    ]  # fmt: skip


def duck(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def test_values_that_have_a_type_already_are_taken_as_they_are(shop: Shop) -> None:
    duckdb.sql("""
        select 'o1' as no, null::varchar as customer, timestamptz '2026-11-01 10:00:00+00' as at,
            timestamp '2026-11-01 12:00:00' as changed, null::timestamp as cancelled, 'EUR' as currency
    """).write_parquet(str(shop.folder / "in" / "sales.parquet"))
    duckdb.sql("select 'o1' as no, 4711 as article, 2::decimal(6, 2) as pieces, 1.25::double as price").write_parquet(
        str(shop.folder / "in" / "positions.parquet")
    )
    shop.mapping.write_text(
        MAPPING.replace("pieces as", "cast(to_number(pieces) as int) as").replace(
            "at as placed", "to_instant(at) as placed"
        )
    )
    shop.ingest()
    assert shop.ask("select placed_at, updated_at from orders") == [
        (datetime(2026, 11, 1, 10, tzinfo=UTC), datetime(2026, 11, 1, 11, tzinfo=UTC))
    ]
    assert shop.ask("select sku, cast(quantity as float), cast(unit_price as float) from order_lines") == [
        ("4711", 2, 1.25)
    ]


def test_a_birthday_and_a_renewal_are_kept_and_a_day_nobody_alive_was_born_on_is_refused(shop: Shop) -> None:
    days = "cast(split_part(zone, '/', 2) as text) as birthday, split_part(zone, '/', 3) as renews_on"
    shop.mapping.write_text(MAPPING.replace("zone as time_zone", days))
    shop.deliver(
        "people", "c1,,x/1990-02-28/2027-01-15", "c2,,x//", "c3,,x/1790-01-01/", "c4,,x/2027-01-01/", "c5,,x/soon/"
    )
    shop.deliver("sales", "o1,c1,2026-11-01 10:00:00,,,")
    shop.ingest()
    told = "select source_customer_id, birthday::text, renews_on::text from customers order by 1"
    assert shop.ask(told) == [("c1", "1990-02-28", "2027-01-15"), ("c2", None, None)]
    assert shop.refused() == {("birthday: not a day of birth",): 2, ("birthday: not a date like 2026-12-01",): 1}
    shop.deliver("people", "c1,,x//2028-01-15")
    shop.ingest()
    assert shop.ask(told)[0] == ("c1", "1990-02-28", "2028-01-15")


# ---------------------------------------------------------------- what is refused


def test_each_kind_of_bad_row_is_refused_with_its_reason_and_the_rest_is_loaded(shop: Shop) -> None:
    shop.deliver("people", "c1,,", ",nobody@customers.example,")
    shop.deliver(
        "sales",
        "o1,c1,2026-11-01 10:00:00,,,",
        ",c1,2026-11-01 10:00:00,,,",
        "o2,c1,,,,",
        "o3,c1,03/04/2026,,,",
        "o4,c1,2099-01-01 10:00:00,,,",
        "o5,c1,2026-11-01 10:00:00,,,USD",
        "o6,c9,2026-11-01 10:00:00,,,",
        "o7,c1,2026-11-01 10:00:00,,,",
        "o7,c1,2026-11-02 10:00:00,,,",
        "o8,c1,2026-11-01 10:00:00,,,",
        "o8,c1,2026-11-01 10:00:00,,,",
        "o9,c1,2026-02-30 10:00:00,soon,,",
    )
    shop.deliver(
        "positions",
        "o1,tea,2,3.50",
        "o1,tea,two,3.50",
        "o1,tea,1,",
        'o1,tea,1,"3,50"',
        "o1,tea,NaN,1",
        "o99,tea,1,1",
        "o4,tea,1,1",
    )
    shop.deliver("parcels", "o1,2026-11-01 10:00:00,2031-01-01 10:00:00")
    counts = shop.ingest()
    assert shop.refused() == {
        ("source_customer_id: missing",): 1,
        ("source_order_id: missing",): 1,
        ("placed_at: missing",): 1,
        ("placed_at: not a time like 2026-12-01 09:30:00",): 1,
        ("placed_at: in the future",): 1,
        ("currency: not the currency of the shop",): 1,
        ("source_customer_id: no such customer",): 1,
        ("source_order_id: two different rows in one delivery",): 2,
        ("placed_at: not a time like 2026-12-01 09:30:00", "updated_at: not a time like 2026-12-01 09:30:00"): 1,
        ("quantity: not a plain number",): 2,
        ("unit_price: missing",): 1,
        ("unit_price: not a plain number",): 1,
        ("source_order_id: no such order",): 2,
        ("delivered_at: in the future",): 1,
    }
    assert counts["rows_quarantined"] == 17
    assert counts["rows_loaded"] == 22 - 17
    assert shop.ask("select source_order_id from orders order by 1") == [("o1",), ("o8",)]
    assert shop.ask("select complete_until from sources") == [(datetime(2026, 11, 1, 9, tzinfo=UTC),)]
    assert shop.ask("select raw from quarantine where reasons = '{unit_price: not a plain number}'") == [
        (
            {
                "source_order_id": "o1",
                "sku": "tea",
                "quantity": "1",
                "unit_price": "3,50",
                "_file": "positions.csv",
                "_line": 5,
            },
        )
    ]


def test_a_refused_row_is_kept_once_and_released_by_its_correction(shop: Shop) -> None:
    shop.deliver("sales1", "o1,,2026-11-31 10:00:00,,,", "o2,,2026-11-01 10:00:00,,,")
    shop.deliver("positions1", "o2,tea,2,free", "o2,cup,1,1", "o2,tea,1,1")
    shop.ingest()
    shop.deliver("sales2", "o2,,2026-11-01 10:00:00,,,", "o1,,2026-11-31 10:00:00,,,")
    shop.ingest(datetime(2026, 12, 2, tzinfo=UTC))
    first, last = NOW, datetime(2026, 12, 2, tzinfo=UTC)
    assert shop.ask("select entity, first_seen, last_seen, released_at from quarantine order by 1") == [
        ("order_lines", first, first, None),  # the good tea of the same order does not excuse the bad one
        ("orders", first, last, None),
    ]
    mended = datetime(2026, 12, 3, tzinfo=UTC)
    shop.deliver("sales3", "o1,,2026-11-30 10:00:00,,,")
    shop.deliver("positions3", "o2,tea,2,3.50")
    assert shop.ingest(mended)["released"] == 2
    assert shop.ask("select count(*) from quarantine where released_at = '2026-12-03 00:00+00'") == [(2,)]
    assert shop.ask("select count(*) from orders") == [(2,)]


def test_too_large_a_share_of_refused_rows_stops_the_load_before_anything_is_merged(shop: Shop) -> None:
    good = [f"o{n},,2026-11-01 10:00:00,,," for n in range(100)]
    shop.deliver("sales1", *good)
    shop.ingest()
    before = shop.everything()
    shop.deliver(
        "sales2", *good, "p1,,2026-11-05 10:00:00,,,", *(f"p{n},,2026-11-05T25:00:00,,," for n in range(2, 25))
    )
    shop.extract()
    with pytest.raises(GateClosed) as caught:
        shop.load()
    assert "23 of 124 orders (18.5%) were refused: placed_at: not a time like 2026-12-01 09:30:00 23" in str(
        caught.value
    )
    after = shop.everything()
    assert len(after["quarantine"]) == 23  # so that somebody can look
    for table in ("orders", "loads", "sources", "customers"):
        assert after[table] == before[table]
    shop.deliver("sales2", *good, *(f"p{n},,2026-11-05 10:00:00,,," for n in range(1, 25)))
    assert shop.ingest()["orders"] == 24
    assert shop.ask("select count(*) from quarantine where released_at is null") == [(0,)]


def test_a_few_refused_rows_never_stop_a_load_by_their_share_alone(shop: Shop) -> None:
    shop.deliver("sales", "o1,,2026-11-01 10:00:00,,,", *(f"p{n},,,,," for n in range(20)))
    assert shop.ingest()["orders"] == 1
