"""The quick lane itself: every transactional campaign is planned and handed over, and what is ill holds up nothing else."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.shop import Shop
from postlude import db, pipeline, transactional
from postlude.errors import InputError
from postlude.settings import settings
from world import at


@pytest.fixture
def lane(shop: Shop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The lane on the shop's own database and a copy of the files people edit; mail goes to the shop's post."""
    include = tmp_path / "include"
    shutil.copytree(settings().include, include)
    for file in (include / "campaigns").glob("*.yml"):
        if file.stem not in ("order_confirmation", "order_shipped", "order_delivered"):
            file.unlink()
    monkeypatch.setenv("POSTLUDE_INCLUDE", str(include))
    monkeypatch.setenv("POSTLUDE_DB_URL", shop.engine.url.render_as_string(hide_password=False))
    for cached in (settings, db.default_engine):
        cached.cache_clear()

    monkeypatch.setattr(pipeline.delivery, "channel", lambda name: shop.post)
    yield include
    monkeypatch.undo()
    for cached in (settings, db.default_engine):
        cached.cache_clear()


def tell(now: str) -> dict[str, Any]:
    return transactional.tell(lambda: at(now), "w1", at(now), f"lane {now}", "test")


def test_the_lane_tells_what_happened_and_a_broken_letter_stops_no_other(shop: Shop, lane: Path) -> None:
    assert tell("2026-03-02 09:00")["ill"] == 0  # they ran once
    ana = shop.customer(consent=None)
    order = shop.sale(ana, "2026-03-02 10:00")
    counts = tell("2026-03-02 10:05")
    assert (counts["enrolled"], counts["planned"], counts["sent"]) == (1, 5, 1), "and nothing is said to have arrived"
    assert shop.received(ana) == ["welcome"]
    shop.parcel(order, "a", "2026-03-02 15:00")
    shop.sale(ana, "2026-03-02 15:01")
    words = lane / "templates" / "order_shipped" / "parcel.en.yml"
    sound = words.read_text()
    words.write_text("subject: broken {{\n")
    with pytest.raises(InputError, match="order_shipped"):
        tell("2026-03-02 15:05")
    assert shop.received(ana)[1:] == ["plain"], "the other order is confirmed"
    words.write_text(sound)
    tell("2026-03-02 15:10")
    assert shop.received(ana)[2:] == ["parcel"], "once it is mended, nothing is lost"
