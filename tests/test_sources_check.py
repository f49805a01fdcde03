"""`postlude source check`: what would be loaded and what refused, without writing; and a new layout without Python."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine
from sqlalchemy.engine import URL

import fake_shops
from cornershop import MAPPING, NOW, Shop
from postlude import source_checks
from postlude.errors import InputError
from postlude.settings import settings
from postlude.sources import Source, kinds, load_source, reader
from test_cli import Shell

SOURCES = settings().include / "sources"


@pytest.fixture
def shop(engine: Engine, tmp_path: Path) -> Shop:
    return Shop(engine, tmp_path)


def test_what_would_be_loaded_and_refused_is_shown_and_nothing_is_written(shop: Shop) -> None:
    shop.deliver("people", "c1,ann@customers.example,")
    shop.deliver("sales", "o1,c1,2026-11-01 10:00:00,,,", "o2,c1,31.11.2026,,,", "o3,c9,2026-11-02 10:00:00,,,")
    shop.deliver("positions", "o1,tea,2,3.50", 'o1,cup,1,"3,50"', "o9,tea,1,1")
    shop.ingest()  # what is stored stays as it is ...
    shop.extract()  # ... and so does what waits for its load
    before = shop.everything()
    found = source_checks.preview(shop.engine, shop.source(), NOW)
    assert shop.everything() == before
    orders, lines = found["entities"]["orders"], found["entities"]["order_lines"]
    assert (orders["delivered"], orders["would_load"], orders["refused"], orders["unresolved"]) == (3, 1, 1, 1)
    assert orders["rows"][0] | {"placed_at": ""} == {
        "source_order_id": "o1", "source_customer_id": "c1", "currency": "EUR", "placed_at": "",
    }  # fmt: skip
    assert orders["refusals"][0] == {
        "reasons": ["placed_at: not a time like 2026-12-01 09:30:00"],
        "delivery": "sales.csv",
        "line": 3,
        "row": {"source_order_id": "o2", "source_customer_id": "c1", "placed_at": "31.11.2026", "currency": "EUR"},
    }
    assert [bad["reasons"] for bad in lines["refusals"]] == [
        ["unit_price: not a plain number"],
        ["source_order_id: no such order"],
    ]
    assert orders["new_or_changed"] == 0  # o1 is there already
    limited = source_checks.preview(shop.engine, shop.source(), NOW, limit=1)
    assert {name: entity["delivered"] for name, entity in limited["entities"].items()} == {
        "customers": 1, "orders": 1, "order_lines": 1,
    }  # fmt: skip
    shop.mapping.write_text(MAPPING.replace("at as placed_at", "at as placed"))
    with pytest.raises(
        InputError, match=r'corner_shop.sql:\d+: placed: orders has no such column; did you mean "placed_at"'
    ):
        source_checks.preview(shop.engine, shop.source(), NOW)


def test_a_saved_answer_of_a_shop_is_checked_without_asking_the_shop(database: URL, tmp_path: Path) -> None:
    shell = Shell(database, tmp_path)
    at = "2026-11-01T10:00:00"
    refund = {
        "id": 90,
        "order_id": 1,
        "date_created_gmt": "2026-11-05T10:00:00",
        "line_items": [{"id": 4, "sku": "TEA"}],
    }
    orders = [
        fake_shops.woo_order(1, at, at, 3.5, refunds=[{"id": 90}]),
        fake_shops.woo_order(2, at, at, 3.5, currency="USD"),
    ]
    (tmp_path / "samples").mkdir()
    (tmp_path / "samples" / "orders.json").write_text(json.dumps(orders))
    (tmp_path / "samples" / "refunds.json").write_text(json.dumps([refund]))
    words = ("source", "check", "woocommerce", "--sample", str(tmp_path / "samples"), "--as-of", "2026-12-01")
    found = shell.json(*words)
    assert {name: entity["would_load"] for name, entity in found["entities"].items()} == {
        "customers": 1, "orders": 1, "order_lines": 1, "returns": 1,
    }  # fmt: skip
    assert found["entities"]["returns"]["rows"][0]["return_key"] == "90-4"
    shown = shell(*words)
    assert "orders: 1 of 2 rows would load (1 new or changed), 1 would be refused" in shown
    assert "currency: not the currency of the shop" in shown
    assert "Nothing was written." in shown
    assert "there is no source" in shell("source", "check", "nowhere", code=2)
    listed = shell.json("source", "list")
    states = {row["source"]: row["connection_set"] for row in listed}
    assert (states["woocommerce"], states["sample_shop"]) == (False, None)
    assert all(row["loaded_at"] is None for row in listed)
    many = [fake_shops.woo_order(n, at, at, 3.5, currency="USD") for n in range(30)]
    (tmp_path / "many.json").write_text(json.dumps({"orders": many}))
    words = ("source", "check", "woocommerce", "--sample", str(tmp_path / "many.json"), "--as-of", "2026-12-01")
    assert "30 of 30 orders (100.0%) were refused" in shell(*words, code=3)


def test_a_new_layout_of_a_known_kind_is_one_yaml_and_one_sql_file(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "till.csv").write_text(
        "Bon;Kunde;Wann;Was;Euro\n1;7;2026-11-01 10:00:00;Tee;3.50\n1;7;2026-11-01 10:00:00;Tasse;8\n"
    )
    (tmp_path / "till.sql").write_text("""\
-- entity: customers
select distinct "Kunde" as source_customer_id from receipts
-- entity: orders
select distinct on ("Bon") "Bon" as source_order_id, "Kunde" as source_customer_id, "Wann" as placed_at from receipts
-- entity: order_lines
select "Bon" as source_order_id, "Was" as sku, 1 as quantity, "Euro" as unit_price, _file, _line from receipts
""")
    (tmp_path / "till.yml").write_text(f"""\
id: till
shop: The till
kind: files
currency: EUR
time_zone: Europe/Berlin
mapping: {tmp_path / "till.sql"}
entities:
  receipts:
    path: {tmp_path / "till*.csv"}
    columns: [Bon, Kunde, Wann, Was, Euro]
    delimiter: ";"
""")
    source = load_source(tmp_path / "till.yml")
    found = source_checks.preview(engine, source, NOW, limit=None)
    assert {name: entity["new_or_changed"] for name, entity in found["entities"].items()} == {
        "customers": 1, "orders": 1, "order_lines": 2,
    }  # fmt: skip
    assert loaded(engine, source)["order_lines"] == 2


def loaded(engine: Engine, source: Any) -> dict[str, int]:
    from postlude import db, intake

    with db.transaction(engine) as conn:
        intake.extract(conn, source, NOW, "run")
        return intake.load(conn, source, NOW, "run")


def test_it_must_be_clear_which_sample_is_of_what(tmp_path: Path) -> None:
    source = load_source(SOURCES / "shopify.yml")
    page, other, one = tmp_path / "saved.json", tmp_path / "customers.2026.json", tmp_path / "one.json"
    page.write_text('{"orders": [], "products": []}')
    other.write_text("[]")
    one.write_text('{"id": 1}')
    assert source_checks.samples_of(source, [str(page), str(other)]) == {
        "orders": page,
        "customers": other,
        "products": page,
    }
    assert source_checks.samples_of(source, [f"products={one}"]) == {"products": one}
    with pytest.raises(InputError, match=r"which of orders, customers, products is in .*one.json"):
        source_checks.samples_of(source, [str(one)])
    with pytest.raises(InputError, match=r"there is no .*gone.json"):
        source_checks.samples_of(source, [str(tmp_path / "gone.json")])


def test_the_manual_of_sources_names_every_key_there_is() -> None:
    manual = (settings().include.parent / "docs" / "sources.md").read_text()
    common, _, rest = manual.partition("## Connections and secrets")
    assert sorted(re.findall(r"^\| `(\w+)` \|", common, re.MULTILINE)) == sorted(Source.model_fields)
    assert set(kinds()) == set(re.findall(r"`(\w+)`", re.search(r"^\| `kind` \|(.*)$", common, re.MULTILINE)[1]))  # type: ignore[index]
    sections = dict(re.findall(r"^## (.+)\n((?:(?!^## ).*\n)*)", rest, re.MULTILINE))
    for kind in kinds():
        section = next(text for title, text in sections.items() if kind in title.split(", "))
        keys = set(re.findall(r"^\| `(\w+)` \|", section, re.MULTILINE))
        wanted = set(reader(kind).Entity.model_fields)
        assert keys >= wanted, kind
        if kind in ("files", "sql"):
            assert keys == wanted
        else:
            assert keys == {
                name for shop in ("shopify", "woocommerce", "stripe") for name in reader(shop).Entity.model_fields
            }
