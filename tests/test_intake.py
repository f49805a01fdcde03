"""Orders come in once, whole and checked; what is wrong is refused with its reason, and nothing is half-loaded."""

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

from postlude import db, intake
from postlude.errors import GateClosed, InputError
from postlude.sources import Source, kinds, load_source, load_sources

NOW = datetime(2026, 12, 1, 12, tzinfo=UTC)

YAML = """\
id: corner_shop
shop: The Corner Shop
kind: files
currency: EUR
time_zone: Europe/Berlin
mapping: {mapping}
entities:
  people:
    path: {folder}/people*
    columns: [id, mail, zone]
    optional: true
  sales:
    path: {folder}/sales*
    columns: [no, customer, at, changed, cancelled, currency]
  positions:
    path: {folder}/positions*
    columns: [no, article, pieces, price]
    optional: true
  parcels:
    path: {folder}/parcels*
    columns: [no, left, arrived]
    optional: true
"""
MAPPING = """\
-- The corner shop.

-- entity: customers
select id as source_customer_id, mail as email, zone as time_zone, _file, _line from people

-- entity: orders
select no as source_order_id, customer as source_customer_id, at as placed_at, changed as updated_at,
    cancelled as cancelled_at, coalesce(currency, 'EUR') as currency, _file, _line
from sales;

-- entity: order_lines
select no as source_order_id, article as sku, pieces as quantity, price as unit_price, _file, _line from positions

-- entity: shipments
select no as source_order_id, '1' as shipment_key, "left" as shipped_at, arrived as delivered_at from parcels
"""
HEADS = {
    "people": "id,mail,zone",
    "sales": "no,customer,at,changed,cancelled,currency",
    "positions": "no,article,pieces,price",
    "parcels": "no,left,arrived",
}
TABLES = (
    "customers", "customer_identities", "orders", "order_lines", "shipments", "quarantine", "loads", "consents",
)  # fmt: skip


class Shop:
    """A small shop that delivers files, and what Postlude knows of it."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self.engine, self.folder = engine, folder
        (folder / "in").mkdir()
        self.mapping = folder / "corner_shop.sql"
        self.yaml = folder / "corner_shop.yml"
        self.mapping.write_text(MAPPING)
        self.yaml.write_text(YAML.format(mapping=self.mapping, folder=folder / "in"))

    def deliver(self, name: str, *rows: str) -> Path:
        """A CSV file; its kind is the beginning of its name."""
        path = self.folder / "in" / f"{name}.csv"
        head = HEADS[name.rstrip("0123456789")]
        path.write_text("\n".join([head, *rows]) + "\n")
        return path

    def source(self) -> Source:
        return load_source(self.yaml)

    def extract(self, now: datetime = NOW) -> dict[str, int]:
        with db.transaction(self.engine) as conn:
            return intake.extract(conn, self.source(), now, "run")

    def load(self, now: datetime = NOW) -> dict[str, int]:
        with db.transaction(self.engine) as conn:
            return intake.load(conn, self.source(), now, "run")

    def ingest(self, now: datetime = NOW) -> dict[str, int]:
        self.extract(now)
        return self.load(now)

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        with self.engine.connect() as conn:
            return [tuple(row) for row in conn.execute(text(sql))]

    def everything(self) -> dict[str, list[tuple[Any, ...]]]:
        """All rows of all tables an intake may write, and all tables there are."""
        found = {table: self.ask(f"select * from {table} order by 1, 2, 3") for table in TABLES}
        found["sources"] = self.ask("select source_id, complete_until from sources")
        found["tables"] = self.ask("select relname from pg_class where relname like 'staging%' order by 1")
        return found

    def refused(self) -> dict[tuple[str, ...], int]:
        return {
            tuple(reasons): count for reasons, count in self.ask("select reasons, count(*) from quarantine group by 1")
        }


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


# ---------------------------------------------------------------- what a person must mend


def _half_loaded_nothing(shop: Shop, match: str) -> None:
    before = shop.everything()
    with pytest.raises(InputError) as caught:
        shop.ingest()
    assert shop.everything() == before
    message = str(caught.value).replace(str(shop.folder) + "/", "")
    assert match in message
    assert "\n" not in message


def test_bad_files_are_named_with_their_line_and_load_nothing(shop: Shop) -> None:
    people = shop.deliver("people", "c1,,")
    sales = shop.folder / "in" / "sales.csv"
    _half_loaded_nothing(shop, "corner_shop.yml:13: entities.sales.path: no file matches in/sales*; check the path")
    sales.write_text("")
    _half_loaded_nothing(shop, "in/sales.csv:1: the file is empty; deliver it again")
    sales.write_text("no,customer,at,changed,canceled,currency\n")
    _half_loaded_nothing(shop, 'in/sales.csv:1: cancelled: this column is missing; did you mean "canceled"?')
    sales.write_bytes(HEADS["sales"].encode() + b"\no1,,2026-11-01 10:00:00,,,\no2,caf\xe9,2026-11-01 10:00:00,,,\n")
    _half_loaded_nothing(shop, "in/sales.csv:3: byte 0xe9 is not utf-8")
    sales.write_text(HEADS["sales"] + "\no1,,2026-11-01 10:00:00,,,\no2,,2026-11-01\n")
    _half_loaded_nothing(shop, 'in/sales.csv:3: missing data for column "changed"')
    sales.write_text(HEADS["sales"] + '\no1,,2026-11-01 10:00:00,,,\no2,"secret,2026-11-01 10:00:00,,,\n')
    _half_loaded_nothing(shop, "in/sales.csv:")
    sales.write_text(HEADS["sales"] + "\no1,,2026-11-01 10:00:00,,,,surplus\n")
    _half_loaded_nothing(shop, "in/sales.csv:2: extra data after last expected column")
    sales.write_text(HEADS["sales"] + "\no1,\0,,,,\n")
    _half_loaded_nothing(shop, "in/sales.csv:2: holds a zero byte")
    sales.write_text(HEADS["sales"] + ",no\n")
    _half_loaded_nothing(shop, "in/sales.csv:1: no: this column is there twice")
    sales.unlink()
    rows = "".join(f"o{n},,2026-11-01 10:00:00,,,\n" for n in range(50_000))
    packed = gzip.compress((HEADS["sales"] + "\n" + rows).encode())
    (shop.folder / "in" / "sales.csv.gz").write_bytes(packed[: len(packed) * 3 // 4])
    _half_loaded_nothing(shop, "the file is cut off: its gzip stream does not end; deliver it again")
    (shop.folder / "in" / "sales.csv.gz").write_bytes(b"not gzip at all")
    _half_loaded_nothing(shop, "in/sales.csv.gz:1: the file is damaged: this is not gzip")
    (shop.folder / "in" / "sales.csv.gz").unlink()
    (shop.folder / "in" / "sales.jsonl").write_text('{"no": "o1"}\n{"no": \n')
    _half_loaded_nothing(shop, "in/sales.jsonl:2: is not a JSON object")
    (shop.folder / "in" / "sales.jsonl").unlink()
    (shop.folder / "in" / "sales.parquet").write_bytes(b"PAR1")
    _half_loaded_nothing(shop, "in/sales.parquet: is not a whole Parquet file")
    (shop.folder / "in" / "sales.parquet").unlink()
    (shop.folder / "in" / "sales.xls").write_bytes(b"x")
    _half_loaded_nothing(shop, 'in/sales.xls: ".xls" says nothing about the format')
    assert people.exists()


def test_a_file_that_breaks_after_others_were_read_leaves_nothing_behind(shop: Shop) -> None:
    shop.deliver("sales1", "o1,,2026-11-01 10:00:00,,,")
    shop.deliver("sales2", "o2,,2026-11-01 10:00:00,,")
    _half_loaded_nothing(shop, "in/sales2.csv:2: missing data for column")
    shop.deliver("sales2", "o2,,2026-11-01 10:00:00,,,")
    assert shop.ingest()["orders"] == 2


BROKEN_MAPPINGS = [
    ("at as placed_at", "at as plased_at", '7: plased_at: orders has no such column; did you mean "placed_at"?'),
    ("from sales;", "from sails;", '9: orders: relation "sails" does not exist'),
    ("cancelled as", "canceled as", '8: orders: column "canceled" does not exist'),
    ("from positions", "frm positions", '12: order_lines: syntax error at or near "positions"'),
    ("pieces as q", "now() as q", "12: quantity: is timestamp with time zone, but must be numeric"),
    (
        "pieces as q",
        "pieces::int as q",
        "12: order_lines: invalid input syntax for type integer; read text with to_number",
    ),
    (", pieces as quantity", "", '11: order_lines: does not give "quantity", which every row needs'),
    ("entity: orders", "entity: order", '6: order: there is no such entity; did you mean "orders"?'),
    ("entity: orders", "entity: customers", "6: customers: stands here again"),
    ("-- entity: customers\n", "", "3: this text belongs to no entity"),
    (" no as source_order_id, article", " x; delete from orders; select article", "12: order_lines: syntax error"),
]


@pytest.mark.parametrize(("old", "new", "message"), BROKEN_MAPPINGS)
def test_a_broken_mapping_is_named_with_file_and_line_and_loads_nothing(
    shop: Shop, old: str, new: str, message: str
) -> None:
    shop.deliver("sales", "o1,,2026-11-01 10:00:00,,,")
    shop.deliver("positions", "o1,tea,two,3.50")
    shop.mapping.write_text(MAPPING.replace(old, new, 1))
    before = shop.everything()
    with pytest.raises(InputError) as caught:
        shop.ingest()
    assert f"corner_shop.sql:{message}" in str(caught.value)
    assert '"two"' not in str(caught.value)
    assert shop.everything() == before


def test_a_mapping_reads_and_never_writes(shop: Shop) -> None:
    shop.deliver("sales", "o1,,2026-11-01 10:00:00,,,")
    shop.mapping.write_text(
        MAPPING.replace(
            "from sales;", "from sales where exists (with d as (delete from orders returning 1) select from d)"
        )
    )
    with pytest.raises(
        InputError, match=r"corner_shop.sql:\d+: orders: WITH clause containing a data-modifying statement"
    ):
        shop.ingest()


WRONG_SOURCES = [
    (
        "currency: EUR",
        "curency: EUR",
        ['1: currency: is missing; add a line "currency: ..."', '4: curency: unknown key; did you mean "currency"?'],
    ),
    ("Europe/Berlin", "Berlin", ['5: time_zone: "Berlin" is not a time zone; write e.g. "Europe/Berlin" or "UTC"']),
    ("kind: files", "kind: file", ['3: kind: there is no kind "file"; did you mean "files"?']),
    ("corner_shop.sql", "korner_shop.sql", ["6: mapping: there is no file"]),
    ("optional: true", "optional: yes", ['11: entities.people.optional: must be true or false, not "yes"']),
    (
        "columns: [id, mail",
        "colums: [id, mail",
        [
            '8: entities.people.columns: is missing; add a line "columns: ..."',
            '10: entities.people.colums: unknown key; did you mean "columns"?',
        ],
    ),
    ("[id, mail, zone]", "[id, _line]", ["10: entities.people.columns: _line: this name is kept"]),
]


@pytest.mark.parametrize(("old", "new", "messages"), WRONG_SOURCES)
def test_a_wrong_source_file_is_named_with_line_and_key(shop: Shop, old: str, new: str, messages: list[str]) -> None:
    shop.yaml.write_text(shop.yaml.read_text().replace(old, new, 1))
    with pytest.raises(InputError) as caught:
        shop.source()
    assert len(caught.value.faults) == len(messages)
    for fault, message in zip(caught.value.faults, messages, strict=True):
        assert f"corner_shop.yml:{message}" in str(fault)


def test_a_path_may_come_from_the_environment(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    path = shop.deliver("sales", "o1,,2026-11-01 10:00:00,,,")
    words = shop.yaml.read_text().replace(f"{path.parent}/sales", "${CORNER_SHOP_FILES}/sales")
    shop.yaml.write_text(words)
    with pytest.raises(InputError, match=r"yml:13: entities.sales.path: the variable CORNER_SHOP_FILES is not set"):
        shop.extract()
    monkeypatch.setenv("CORNER_SHOP_FILES", str(path.parent))
    assert shop.extract()["orders"] == 1
    monkeypatch.delenv("CORNER_SHOP_FILES")
    shop.yaml.write_text(words.replace("${CORNER_SHOP_FILES}", "${CORNER_SHOP_FILES:-" + str(path.parent) + "}"))
    assert shop.extract()["orders"] == 1


def test_progress_is_told_while_files_are_read(shop: Shop) -> None:
    shop.deliver("sales", *(f"o{n},,2026-11-01 10:00:00,,," for n in range(60_000)))
    told: list[tuple[str, int, int]] = []
    with db.transaction(shop.engine) as conn:
        intake.extract(conn, shop.source(), NOW, "run", lambda label, done, total: told.append((label, done, total)))
    reading = [(done, total) for label, done, total in told if label == "sales.csv"]
    assert len(reading) >= 2
    assert reading == sorted(reading)
    assert reading[-1][0] == reading[-1][1] > 1_000_000


def test_every_shipped_source_file_and_mapping_is_sound() -> None:
    sources = load_sources()
    assert {"online_retail", "olist"} <= {source.id for source in sources}
    assert kinds() == ["files"]
