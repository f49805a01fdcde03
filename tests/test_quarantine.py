"""What was refused can be looked at, mended and tried again; a second try changes nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Engine
from sqlalchemy.engine import URL
from typer.testing import CliRunner

from cornershop import MAPPING, NOW, Shop
from postlude import cli, db, quarantine
from postlude.errors import InputError
from postlude.settings import settings

LATER = datetime(2026, 12, 2, 12, tzinfo=UTC)


@pytest.fixture
def shop(engine: Engine, tmp_path: Path) -> Shop:
    return Shop(engine, tmp_path)


def waiting(shop: Shop, reason: str = "") -> list[int]:
    with db.transaction(shop.engine) as conn:
        return [row["id"] for row in quarantine.rows(conn, reason=reason)]


def again(shop: Shop, *, through_mapping: bool = False, **corrections: str) -> dict[str, int]:
    with db.transaction(shop.engine) as conn:
        ids = [row["id"] for row in quarantine.rows(conn)]
        if through_mapping:
            return quarantine.reread(conn, shop.source(), ids, LATER, "replay")
        return quarantine.replay(conn, shop.source(), ids, LATER, "replay", corrections=corrections)


def test_an_orphan_whose_order_has_come_is_loaded_by_a_replay_and_only_once(shop: Shop) -> None:
    shop.deliver("sales1", "o1,,2026-11-01 10:00:00,,,")
    shop.deliver("positions1", "o1,tea,2,3.50", "o2,tea,1,3.50", "o2,cup,1,8", "o9,cup,1,8")
    shop.ingest()
    shop.deliver("sales2", "o2,,2026-11-02 10:00:00,,,")
    shop.ingest()
    assert len(waiting(shop)) == 3
    watermark = shop.ask("select complete_until, loaded_at from sources")
    assert again(shop) == {"replayed": 3, "released": 2, "still_refused": 1, "order_lines": 2}
    assert shop.ask("select source_order_id, sku from order_lines join orders using (order_id) order by 1, 2") == [
        ("o1", "tea"), ("o2", "cup"), ("o2", "tea"),
    ]  # fmt: skip
    assert shop.ask("select reasons, replays, released_at from quarantine order by released_at nulls first, 1") == [
        (["source_order_id: no such order"], 1, None),
        (["source_order_id: no such order"], 1, LATER),
        (["source_order_id: no such order"], 1, LATER),
    ]
    assert shop.ask("select complete_until, loaded_at from sources") == watermark
    before = shop.everything()["order_lines"]
    assert again(shop) == {"replayed": 1, "released": 0, "still_refused": 1}
    shop.deliver("positions3", "o2,tea,1,3.50", "o2,cup,1,8")  # and the whole delivery once more
    shop.ingest()
    assert shop.everything()["order_lines"] == before


def test_a_corrected_value_goes_through_the_same_checks_and_the_row_stays_as_it_came(shop: Shop) -> None:
    shop.deliver("people", "c1,,")
    shop.deliver("sales", "o1,c1,2026-11-01 10:00:00,,,")
    shop.deliver("positions", 'o1,tea,two,"3,50"')
    shop.ingest()
    assert again(shop, quantity="2") == {"replayed": 1, "released": 0, "still_refused": 1}
    assert shop.refused() == {("unit_price: not a plain number",): 1}
    with pytest.raises(InputError, match='no column qantity; did you mean "quantity"'):
        again(shop, qantity="2")
    assert again(shop, quantity="2", unit_price="3.50")["released"] == 1
    assert shop.ask("select cast(counted_amount as float) from orders") == [(7.0,)]
    assert shop.ask("select raw ->> 'quantity', corrected ->> 'quantity' from quarantine") == [("two", "2")]


def test_files_are_read_again_through_a_mended_mapping_and_only_what_was_refused_is_touched(shop: Shop) -> None:
    shop.deliver("people", "c1,,")
    shop.deliver("sales", "o1,c1,2026-11-01 10:00:00,,,", "o2,c1,01.11.2026,,,")
    shop.deliver("positions", 'o1,tea,1,"3,50"', "o1,cup,1,8", "o2,cup,2,8")
    shop.ingest()
    assert len(waiting(shop)) == 3
    with shop.engine.begin() as conn:  # told by the shop since, without a version
        conn.exec_driver_sql("update orders set status = 'kept' where source_order_id = 'o1'")
    mended = MAPPING.replace("price as unit_price", "replace(price, ',', '.') as unit_price").replace(
        "at as placed_at", "regexp_replace(at, '^(..)[.](..)[.](....)$', '\\3-\\2-\\1') as placed_at"
    )
    shop.mapping.write_text(mended)
    done = again(shop, through_mapping=True)
    assert (done["replayed"], done["released"], done["still_refused"], done["orders"]) == (3, 3, 0, 1)
    assert shop.ask("""select source_order_id, status, cast(counted_amount as float) from orders order by 1""") == [
        ("o1", "kept", 11.5), ("o2", None, 16.0),
    ]  # fmt: skip
    for path in (shop.folder / "in").iterdir():
        path.unlink()
    (shop.folder / "in" / "sales7.csv").write_text("no,customer,at,changed,cancelled,currency\n")
    with db.transaction(shop.engine) as conn, pytest.raises(InputError, match="no longer there"):
        conn.exec_driver_sql("update quarantine set released_at = null")
        quarantine.reread(conn, shop.source(), waiting(shop) or [1, 2, 3], LATER, "replay")


def test_a_delivery_between_extract_and_load_is_left_as_it_is(shop: Shop) -> None:
    shop.deliver("sales1", "o1,,2026-11-01 10:00:00,,,")
    shop.deliver("positions1", "o2,tea,1,3.50")
    shop.ingest()
    shop.deliver("sales2", "o2,,2026-11-02 10:00:00,,,")
    shop.extract()
    assert again(shop)["still_refused"] == 1
    assert shop.load()["orders"] == 1
    assert again(shop)["released"] == 1


# ---------------------------------------------------------------- the command line


@pytest.fixture
def command(shop: Shop, database: URL, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    monkeypatch.setenv("POSTLUDE_DB_URL", database.render_as_string(hide_password=False))
    settings.cache_clear()
    db.default_engine.cache_clear()

    def run(*words: str) -> Any:
        return CliRunner().invoke(cli.app, ["quarantine", *words])

    yield run
    db.default_engine().dispose()
    monkeypatch.undo()
    settings.cache_clear()
    db.default_engine.cache_clear()


def test_the_command_lists_shows_and_replays(shop: Shop, command: Any) -> None:
    assert "Nothing is in the quarantine." in command("list").output
    shop.deliver("sales", "o1,,2026-11-01 10:00:00,,,")
    shop.deliver("positions", "o1,tea,two,3.50", "o1,cup,three,8", "o1,pot,1,")
    shop.ingest()
    listed = json.loads(command("list", "--json").output)
    assert [(row["source"], row["entity"], row["reason"], row["found"]) for row in listed] == [
        ("corner_shop", "order_lines", "quantity: not a plain number", 2),
        ("corner_shop", "order_lines", "unit_price: missing", 1),
    ]
    rows = json.loads(command("list", "--rows", "--reason", "missing", "--json").output)
    assert [row["reasons"] for row in rows] == [["unit_price: missing"]]
    number = str(rows[0]["id"])
    shown = json.loads(command("show", number, "--json").output)
    assert shown["raw"]["sku"] == "pot" and shown["first_seen"].startswith(f"{NOW:%Y-%m-%d}")
    assert "pot" in command("show", number).output
    done = command("replay", number, "--set", "unit_price=4", "--source", str(shop.yaml), "--json")
    assert json.loads(done.output)["corner_shop"]["released"] == 1
    left = command("replay", "--source", str(shop.yaml), "--json")
    assert json.loads(left.output)["corner_shop"] == {"replayed": 2, "released": 0, "still_refused": 2}
    assert shop.ask("select outcome from runs where stage = 'replay'") == [("done",), ("done",)]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["show", "99"], "there is no row 99"),
        (["replay"], "say which rows"),
        (["replay", "1", "--set", "price"], "write COLUMN=VALUE"),
        (["replay", "--source", "x", "--set", "a=1"], "--set is for rows named by their numbers"),
    ],
)
def test_a_wrong_command_says_what_to_write(command: Any, words: list[str], message: str) -> None:
    done = command(*words)
    assert done.exit_code != 0
    assert isinstance(done.exception, InputError) and message in str(done.exception)
