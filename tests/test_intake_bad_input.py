"""A file, mapping or source file that a person must mend is named with its line, and nothing is half-loaded."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from sqlalchemy import Engine

from cornershop import HEADS, MAPPING, NOW, Shop
from postlude import db, intake
from postlude.errors import InputError
from postlude.sources import kinds, load_sources


@pytest.fixture
def shop(engine: Engine, tmp_path: Path) -> Shop:
    return Shop(engine, tmp_path)


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
    assert "files" in kinds()
