"""Two runs of `ingest` over the same source at once, as a backfill starts them: each row is checked, then loaded, once."""

from __future__ import annotations

from pathlib import Path

import pytest
from sqlalchemy import Engine

from cornershop import NOW, Shop
from postlude import db, pipeline, quality
from postlude.errors import GateClosed, Unavailable

HAS_IT = {"taken_over": 1}


@pytest.fixture
def shop(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Shop:
    monkeypatch.setattr(db, "default_engine", lambda: engine)
    monkeypatch.setattr(db, "server_url", lambda *_: engine.url)
    shop = Shop(engine, tmp_path)
    shop.deliver("people1", "c1,c1@customers.example,Europe/Berlin")
    shop.deliver("sales1", *(f"o{n},c1,2026-11-{n:02},2026-11-{n:02},,EUR" for n in range(1, 25)))
    shop.deliver("positions1", *(f"o{n},mug,1,9.50" for n in range(1, 25)))
    return shop


def extract(shop: Shop, run: str) -> None:
    pipeline.extract(str(shop.yaml), NOW, run, "backfill")


def check(shop: Shop, run: str) -> dict[str, int]:
    return pipeline.check("orders", str(shop.yaml), NOW, run)


def load(shop: Shop, run: str) -> dict[str, int]:
    return pipeline.load(str(shop.yaml), NOW, run, "backfill")


def test_the_run_that_staged_last_checks_and_loads_and_the_other_has_nothing_left_to_do(shop: Shop) -> None:
    extract(shop, "monday")
    assert check(shop, "monday")["evaluated"] > 0
    extract(shop, "tuesday")  # what monday has checked is not there any more
    with pytest.raises(Unavailable, match="has not loaded it yet"):  # what follows must not see half a day
        load(shop, "monday")
    assert shop.ask("select count(*) from orders") == [(0,)], "nothing is loaded that nobody has checked"
    assert check(shop, "monday") == HAS_IT
    assert check(shop, "tuesday")["evaluated"] > 0
    assert load(shop, "tuesday")["orders"] == 24
    assert check(shop, "monday") == HAS_IT
    assert load(shop, "tuesday")["rows_loaded"] == load(shop, "monday")["rows_loaded"] == 0  # cleared, and run again
    extract(shop, "wednesday")
    assert load(shop, "monday") == HAS_IT, "all of it was loaded, whoever is at it now"
    assert shop.ask("select count(*), count(distinct source_order_id) from orders") == [(24, 24)]


@pytest.mark.parametrize("other", ["stages", "loads"])
def test_a_check_from_under_which_the_rows_are_taken_does_not_close_the_gate(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, other: str
) -> None:
    extract(shop, "monday")

    def meanwhile(*_: object, **__: object) -> None:
        extract(shop, "tuesday")
        if other == "loads":
            load(shop, "tuesday")
        raise GateClosed('relation "staging_corner_shop_orders" does not exist')

    with monkeypatch.context() as patch:
        patch.setattr(quality, "check", meanwhile)
        assert check(shop, "monday") == HAS_IT

    def fails(*_: object, **__: object) -> None:
        raise GateClosed("half of the orders have no customer")

    extract(shop, "wednesday")
    with monkeypatch.context() as patch:
        patch.setattr(quality, "check", fails)
        with pytest.raises(GateClosed, match="half of the orders"):  # its own rows still close it
            check(shop, "wednesday")
