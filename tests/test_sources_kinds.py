"""What is particular to one kind of source: object stores, real databases, recorded answers, and where secrets are found."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import duckdb
import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.engine import URL
from upath import UPath

import fake_shops
from cornershop import NOW, Shop
from postlude import db, intake
from postlude.errors import InputError, Unavailable
from postlude.settings import settings
from postlude.sources import Source, _connections, _cursors, _http, _pull, load_source

SOURCES = settings().include / "sources"


def shipped(folder: Path, name: str, **changes: str) -> Source:
    """A source file as it is shipped, with some words changed."""
    words = (SOURCES / f"{name}.yml").read_text()
    for old, new in changes.items():
        words = words.replace(old, new)
    (folder / f"{name}.yml").write_text(words)
    return load_source(folder / f"{name}.yml")


def ingest(engine: Engine, source: Source, now: datetime = NOW) -> dict[str, int]:
    with db.transaction(engine) as conn:
        intake.extract(conn, source, now, "run")
    with db.transaction(engine) as conn:
        return intake.load(conn, source, now, "run")


def ask(engine: Engine, sql: str) -> list[tuple[Any, ...]]:
    with engine.connect() as conn:
        return [tuple(row) for row in conn.execute(text(sql))]


# ---------------------------------------------------------------- object stores


@pytest.fixture
def bucket(tmp_path: Path) -> Iterator[UPath]:
    """A folder in a store that lives in memory; its files are reached by URL only."""
    root = UPath(f"memory://{tmp_path.name}")
    yield root
    root.fs.store.clear()


def test_files_in_an_object_store_are_loaded_once_each_as_if_they_lay_in_a_folder(
    engine: Engine, tmp_path: Path, bucket: UPath
) -> None:
    shop = Shop(engine, tmp_path)
    shop.yaml.write_text(shop.yaml.read_text().replace(f"{tmp_path / 'in'}/", f"{bucket}/"))
    people = tmp_path / "people.parquet"
    duckdb.sql("select 'c1' as id, 'ann@customers.example' as mail, null::varchar as zone").write_parquet(str(people))
    (bucket / "people.parquet").write_bytes(people.read_bytes())
    head = "no,customer,at,changed,cancelled,currency\n"
    (bucket / "sales1.csv.gz").write_bytes(gzip.compress(f"{head}o1,c1,2026-11-01 10:00:00,,,\n".encode()))
    counts = shop.ingest()
    assert (counts["files"], counts["customers"], counts["orders"]) == (2, 1, 1)
    (bucket / "sales1 again.csv.gz").write_bytes((bucket / "sales1.csv.gz").read_bytes())
    assert set(shop.ingest().values()) == {0}
    whole = gzip.compress(f"{head}o2,c1,2026-11-02 10:00:00,,,\n".encode())
    (bucket / "sales2.csv.gz").write_bytes(whole[:-9])
    with pytest.raises(InputError, match=rf"{bucket}/sales2.csv.gz:\d+: the file is cut off"):
        shop.ingest()
    (bucket / "sales2.csv.gz").write_bytes(whole)
    counts = shop.ingest()
    assert (counts["files"], counts["orders"]) == (1, 1)


def test_a_store_that_cannot_be_used_is_named_without_its_secrets(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = Shop(engine, tmp_path)
    words = shop.yaml.read_text()
    shop.yaml.write_text(words.replace(f"{tmp_path / 'in'}/sales*", "nowhere://drop@bucket/sales*"))
    with pytest.raises(InputError, match='the connection "drop" is not set; set POSTLUDE_CONN_DROP'):
        shop.extract()
    monkeypatch.setenv("POSTLUDE_CONN_DROP", f"aws://key:{fake_shops.SECRET}@")
    with pytest.raises(InputError, match=r"nowhere:// needs a package that is not installed") as caught:
        shop.extract()
    assert fake_shops.SECRET not in str(caught.value)
    shop.yaml.write_text(words.replace(f"{tmp_path / 'in'}/sales*", "memory://empty/sales*"))
    with pytest.raises(InputError, match=r"entities.sales.path: no file matches memory://empty/sales\*"):
        shop.extract()


def test_what_the_store_says_of_a_file_is_its_checksum_so_that_old_files_are_not_fetched(
    engine: Engine, tmp_path: Path, bucket: UPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop = Shop(engine, tmp_path)
    shop.yaml.write_text(shop.yaml.read_text().replace(f"{tmp_path / 'in'}/", f"{bucket}/"))
    (bucket / "sales.csv").write_text("no,customer,at,changed,cancelled,currency\no1,,2026-11-01 10:00:00,,,\n")
    info, opened = bucket.fs.info, []
    monkeypatch.setattr(type(bucket.fs), "info", lambda fs, path, **more: info(path, **more) | {"ETag": '"4711"'})
    shop.ingest()
    assert shop.ask("select checksum from loads") == [('etag:"4711"',)]
    monkeypatch.setattr(type(bucket.fs), "_open", lambda *a, **more: opened.append(a))
    assert set(shop.ingest().values()) == {0}
    assert opened == []


# ---------------------------------------------------------------- databases


def test_a_postgresql_shop_is_streamed_with_its_types_and_never_written(
    engine: Engine, cluster: URL, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = cluster.set(database=f"the_shop_{engine.url.database}")
    db.create_database(url)
    theirs = create_engine(db._psycopg(url))
    try:
        with theirs.begin() as conn:
            conn.execute(
                text(
                    "create table sales (no bigint, who uuid, at timestamptz, cents numeric, gift boolean, more jsonb)"
                )
            )
            conn.execute(text("""
                insert into sales select n, '00000000-0000-0000-0000-000000000007', timestamptz '2026-11-01' + n * interval '1 minute',
                    1250.50, n % 2 = 0, '{"a": [1]}' from generate_series(1, 5000) as n"""))  # fmt: skip
        monkeypatch.setenv(
            "POSTLUDE_CONN_ERP", url.render_as_string(hide_password=False).replace("postgresql:", "postgres:")
        )
        (tmp_path / "erp.sql").write_text("""\
-- entity: customers
select distinct who as source_customer_id from sales
-- entity: orders
select no as source_order_id, who as source_customer_id, at as placed_at, gift from sales
-- entity: order_lines
select no as source_order_id, '1' as line_key, more as sku, 1 as quantity, cents as unit_price, _file, _line from sales
""")
        words = (SOURCES / "database.yml").read_text().partition("entities:")[0]
        words = words.replace("shop_database", "erp").replace("database.sql", str(tmp_path / "erp.sql"))
        query = "select * from sales where at::date > date ''2020-01-01''"
        entity = f"  sales: {{query: '{query}', columns: [no, at], cursor: no, look_back: 10}}\n"
        (tmp_path / "erp.yml").write_text(f"{words}entities:\n{entity}")
        source = load_source(tmp_path / "erp.yml")
        assert ingest(engine, source)["orders"] == 5000
        assert ask(
            engine, "select sku, cast(unit_price as text), placed_at from order_lines order by placed_at limit 1"
        ) == [('{"a": [1]}', "1250.50", datetime(2026, 11, 1, 0, 1, tzinfo=UTC))]
        assert ask(engine, "select entity, cursor from source_cursors") == [("sales", "int:5000")]
        with theirs.begin() as conn:
            conn.execute(text("insert into sales select 5001, who, at, cents, gift, more from sales where no = 1"))
        counts = ingest(engine, source)
        assert (counts["rows_read"], counts["orders"]) == (12, 1)
        for query, told in (
            ("select no, at from sails", r"erp.yml:\d+: entities.sales: the database does not understand the query"),
            (
                "with gone as (delete from sales returning *) select * from gone",
                "does not answer as it should|not understand",
            ),
            ("select no from sales", "entities.sales.columns: at: the database gives no such column"),
        ):
            (tmp_path / "erp.yml").write_text(f"{words}entities:\n  sales: {{query: '{query}', columns: [no, at]}}\n")
            with pytest.raises((InputError, Unavailable), match=told):
                ingest(engine, load_source(tmp_path / "erp.yml"))
        with theirs.connect() as conn:
            assert conn.scalar(text("select count(*) from sales")) == 5001
        (tmp_path / "erp.yml").write_text(f"{words}entities:\n  sales: {{query: 'drop table sales', columns: [no]}}\n")
        with pytest.raises(InputError, match="must be one select"):
            load_source(tmp_path / "erp.yml")
    finally:
        theirs.dispose()


# ---------------------------------------------------------------- recorded answers of the real shops


@pytest.mark.real_data
def test_recorded_orders_of_shopify_load_with_lines_parcels_and_refunds(
    engine: Engine, real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    payloads = real_data / "payloads" / "shopify"
    order = json.loads((payloads / "order.json").read_text())["order"]
    order["refunds"] = [json.loads((payloads / "refund.json").read_text())["refund"]]
    order["fulfillments"][0]["status"] = "success"
    monkeypatch.setattr(_http, "PAUSE", 0)
    with fake_shops.Shopify().open() as shop:
        monkeypatch.setenv("POSTLUDE_CONN_SHOPIFY", shop.connection())
        shop.put("orders", order)
        shop.put("customers", json.loads((payloads / "customer.json").read_text())["customer"])
        source = shipped(tmp_path, "shopify", **{"EUR": "USD", ", start: 2024-01-01": ""})
        counts = ingest(engine, source)
    assert counts["rows_quarantined"] == 0
    assert {e: counts[e] for e in ("customers", "orders", "order_lines", "shipments", "returns")} == {
        "customers": 1, "orders": 1, "order_lines": 3, "shipments": 1, "returns": 2,
    }  # fmt: skip
    assert ask(engine, "select source_order_id, counted_amount, placed_at from orders") == [
        (str(order["id"]), Decimal("597.0000"), datetime(2008, 1, 10, 16, tzinfo=UTC))
    ]
    assert ask(engine, "select sku from returns order by 1") == [("IPOD2008BLACK",), ("IPOD2008GREEN",)]
    assert ask(engine, "select country, granted from customers left join consents using (customer_id)") == [
        ("US", None)
    ]


@pytest.mark.real_data
def test_recorded_orders_of_woocommerce_load_with_guests_and_refunds(
    engine: Engine, real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    payloads = real_data / "payloads" / "woocommerce"
    orders: dict[int, Any] = {}
    for path in sorted(payloads.glob("orders-*.json")):
        found = json.loads(path.read_text())
        for order in found if isinstance(found, list) else found.get("create", []) + found.get("update", []) or [found]:
            orders[order["id"]] = order
    refunds = json.loads((payloads / "order-refunds-02.json").read_text())
    with fake_shops.WooCommerce().open() as shop:
        shop.page_size = 2
        monkeypatch.setenv("POSTLUDE_CONN_WOOCOMMERCE", shop.connection())
        for order in orders.values():
            shop.put("orders", order)
        shop.records["refunds of 723"] = refunds
        source = shipped(tmp_path, "woocommerce", **{"EUR": "USD", ", start: 2024-01-01": ""})
        counts = ingest(engine, source)
        assert counts["rows_quarantined"] == 0
        assert counts["orders"] == len(orders) > 2
        assert counts["order_lines"] == sum(len(order["line_items"]) for order in orders.values())
        assert counts["returns"] == 2
        assert ask(engine, "select source_customer_id like 'guest-%', count(*) from customers group by 1 order by 1") == [
            (False, 1), (True, 1),
        ]  # fmt: skip
        assert ask(engine, "select cast(sum(quantity * unit_price) as float) from order_lines") == [
            (sum(float(line["total"]) for order in orders.values() for line in order["line_items"]),)
        ]
        assert ingest(engine, source)["orders"] == 0


@pytest.mark.real_data
def test_a_recorded_charge_of_stripe_is_an_order_once_it_was_captured(
    engine: Engine, real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    payloads = real_data / "payloads" / "stripe"
    charge = json.loads((payloads / "charge.json").read_text())
    refund = json.loads((payloads / "refund.json").read_text())
    with fake_shops.Stripe().open() as shop:
        monkeypatch.setenv("POSTLUDE_CONN_STRIPE", shop.connection())
        shop.put("charges", charge)
        shop.put("refunds", refund)
        shop.put("customers", json.loads((payloads / "customer.json").read_text()))
        source = shipped(tmp_path, "stripe", **{"EUR": "USD", ", start: 2024-01-01": ""})
        assert (ingest(engine, source)["orders"], charge["captured"]) == (0, False)
        captured = charge | {"captured": True, "amount_captured": charge["amount"]}
        shop.put("events", fake_shops.stripe_event(1, charge["created"] + 60, "charge.captured", captured))
        shop.put("refunds", refund)
        assert ingest(engine, source)["orders"] == 1
        assert ask(engine, "select source_order_id, cast(paid_amount as float), currency from orders") == [
            (charge["id"], charge["amount"] / 100, "USD")
        ]
        assert ask(engine, "select source_order_id, return_key from returns join orders using (order_id)") == [
            (charge["id"], refund["id"])
        ]


# ---------------------------------------------------------------- connections, places, records


def test_a_connection_is_found_by_its_name_and_shows_nothing_but_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = shipped(tmp_path, "shopify")
    monkeypatch.setattr(
        _connections,
        "look_up",
        [{"shopify": '{"conn_type": "http", "host": "https://shop.example/x", "password": "p3"}'}.get],
    )
    assert _connections.web_address(source, _connections.access(source)) == "https://shop.example/x"
    monkeypatch.setenv("AIRFLOW_CONN_SHOPIFY", "http://:p%40ss@shop.example:8443/https?__extra__=%7B%22a%22%3A+1%7D")
    found = _connections.access(source)
    assert (found.password, found.extra) == ("p@ss", {"a": 1})
    assert _connections.web_address(source, found) == "https://shop.example:8443"
    monkeypatch.setenv("POSTLUDE_CONN_SHOPIFY", "https://:first@shop.example")
    assert _connections.access(source).password == "first"
    assert "first" not in repr(_connections.access(source))
    assert "shop.example" not in repr(_connections.access(source))
    words = (tmp_path / "shopify.yml").read_text().replace("connection: shopify\n", "")
    (tmp_path / "shopify.yml").write_text(words)
    with pytest.raises(InputError, match=r'shopify.yml:\d+: connection: is missing; add a line "connection: NAME"'):
        load_source(tmp_path / "shopify.yml")


@pytest.mark.parametrize(
    ("value", "back", "earlier"),
    [
        (datetime(2026, 12, 1, 10, tzinfo=UTC), timedelta(hours=2), datetime(2026, 12, 1, 8, tzinfo=UTC)),
        (datetime(2026, 12, 1, 10).date(), timedelta(days=2), datetime(2026, 11, 29).date()),
        (100, 30, 70),
        (100, timedelta(hours=1), 100),
        (Decimal("7.5"), 1, Decimal("6.5")),
        ("2026-12-01 10:00:00", timedelta(hours=2), "2026-12-01 08:00:00"),
        ("2026-12-01T10:00:00+00:00", timedelta(hours=2), "2026-12-01T08:00:00+00:00"),
        ("2026-12-01", timedelta(days=1), "2026-11-30"),
        ("o-17", timedelta(hours=2), "o-17"),
    ],
)
def test_a_place_keeps_its_type_and_moves_back_by_the_look_back(value: Any, back: Any, earlier: Any) -> None:
    kept = _cursors.read(_cursors.write(value))
    assert (kept, type(kept)) == (value, type(value))
    assert _cursors.before(kept, back) == earlier


def test_a_record_keeps_its_words_without_what_no_database_can_hold() -> None:
    assert json.loads(_pull._payload({"a": "x\0y", "b\0": ["\ud800", "😀", "\\u0000"]})) == {
        "a": "xy",
        "b": ["?", "😀", "\\u0000"],
    }
    assert _pull._payload({"price": 0.1, "id": 12345678901234567890}) == '{"price": 0.1, "id": 12345678901234567890}'
