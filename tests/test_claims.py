"""Price and stock are claims: at hand-over they are compared with the catalogue, put right, or the mail is not sent."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import Connection, Engine, text

from postlude import claims, preview, rendering
from postlude.rendering import samples
from postlude.settings import settings
from world import World, at, campaign


def row(**now: Any) -> dict[str, Any]:
    return {"name": None, "price": Decimal("18.00"), "url": None, "image_url": None, "in_stock": True} | now


ANA = samples()["ana"]
MUG, TOTE, TAG = "MUG-007", "BAG-120", "ACC-031"


def fresh(goods: dict[str, Any], *uses: str) -> dict[str, Any]:
    return claims.fresh(ANA, {("one", sku): now for sku, now in goods.items()}, "one", uses)


def test_a_price_that_changed_since_the_event_is_told_as_it_is_now() -> None:
    told = fresh({MUG: row(price=Decimal("17.50"))}, "product")
    assert told["product"]["price"] == Decimal("17.50")
    assert told["product"]["name"] == ANA["product"]["name"], "what the catalogue does not say stays"
    assert ANA["product"]["price"] == Decimal("18.00")


@pytest.mark.parametrize(
    ("now", "words"),
    [
        (row(in_stock=False), "out of stock"),
        (row(price=Decimal("24.00")), "no lower"),
        (row(price=Decimal("30")), "no lower"),
    ],
)
def test_a_mail_about_a_product_that_is_gone_or_dear_again_is_not_sent(now: dict[str, Any], words: str) -> None:
    with pytest.raises(claims.ClaimOutdated, match=words):
        fresh({MUG: now}, "product", "customer")
    assert fresh({MUG: now}, "customer") == ANA, "a mail that does not show it goes out"


def test_stock_nobody_counts_and_articles_nobody_lists_keep_no_mail_back() -> None:
    assert fresh({MUG: row(in_stock=None)}, "product")["product"]["price"] == Decimal("18.00")
    assert fresh({}, "product", "cart") == ANA


def test_a_cart_shows_what_can_still_be_bought_at_the_price_of_now() -> None:
    told = fresh({TOTE: row(price=Decimal("20.00")), TAG: row(in_stock=False)}, "cart")["cart"]
    assert [(item["sku"], item["amount"]) for item in told["items"]] == [(TOTE, Decimal("40.00"))]
    assert told["amount"] == Decimal("40.00")
    with pytest.raises(claims.ClaimOutdated, match="nothing of the cart"):
        fresh({TOTE: row(in_stock=False), TAG: row(in_stock=False)}, "cart")


def test_the_catalogue_is_read_for_the_articles_of_the_events_and_of_the_right_shop(conn: Connection) -> None:
    for shop in ("one", "two"):
        conn.execute(
            text(
                "insert into sources (source_id, shop, kind, currency, time_zone) values (:s, :s, 'files', 'EUR', 'UTC')"
            ),
            {"s": shop},
        )
        for sku in (MUG, TOTE):
            conn.execute(
                text("insert into products (source_id, sku, name, price, in_stock) values (:s, :k, 'n', :p, true)"),
                {"s": shop, "k": sku, "p": 5 if shop == "one" else 6},
            )
    letters = [
        SimpleNamespace(source_id="one", event={"sku": MUG, "price": 9}),
        SimpleNamespace(source_id="two", event={"items": [{"sku": TOTE}, {"sku": "gone"}, "broken"], "sku": 7}),
        SimpleNamespace(source_id="two", event=None),
    ]
    found = claims.catalogue(conn, letters)
    assert {key: row["price"] for key, row in found.items()} == {("one", MUG): 5, ("two", TOTE): 6}
    assert claims.catalogue(conn, letters[2:]) == {}


# ---------------------------------------------------------------- from the event to the hand-over


@pytest.fixture
def world(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    """A shop whose only mail is the block `product`."""
    preview.block_shelf(tmp_path / "templates")
    monkeypatch.setattr(rendering, "settings", lambda: settings().model_copy(update={"include": tmp_path}))
    made = World(engine)
    made.do("insert into products (source_id, sku, name, price, url, in_stock) "
            "values ('shop', 'MUG', 'Mug', 18, 'https://shop.example/m', true)")  # fmt: skip
    return made


def told_of_a_drop(world: World) -> Any:
    """Ana was told of a price of 18, before 24; the mail is planned and not yet sent."""
    ana = world.customer()
    world.do(
        "insert into external_events (source_id, event_key, customer_id, kind, at, known_at, detail) values "
        "('shop', 'e1', :c, 'price_dropped', :at, :at, cast(:detail as jsonb))",
        c=ana, at=at("2026-06-01 09:00"), detail='{"sku": "MUG", "name": "Mug", "url": "https://shop.example/m", "price": 18, "was": 24}',
    )  # fmt: skip
    drop = campaign("win_back")
    step = drop.steps[0].model_copy(update={"template": "blocks/product"})
    trigger = drop.trigger.model_copy(update={"enters": None, "external": "price_dropped"})
    drop = drop.model_copy(update={"id": "drop", "trigger": trigger, "steps": (step,), "goal": None, "exit_on": ()})
    world.plan(drop, "2026-06-01 09:30")
    return drop


@pytest.mark.parametrize(
    ("change", "state", "shown"),
    [
        ("", ("miss_you", "sent", None), "€18.00"),
        ("set price = 17", ("miss_you", "sent", None), "€17.00"),
        ("set price = 24", ("miss_you", "skipped", "claim_outdated"), ""),
        ("set in_stock = false", ("miss_you", "skipped", "claim_outdated"), ""),
    ],
)
def test_what_the_catalogue_says_at_hand_over_is_what_the_customer_reads(
    world: World, change: str, state: tuple[str, str, str | None], shown: str
) -> None:
    drop = told_of_a_drop(world)
    if change:
        world.do(f"update products {change}")  # between planning and hand-over
    world.deliver(drop, now="2026-06-01 10:00")
    assert world.states() == [state]
    texts = [message.text for message, _ in world.post.taken]
    assert len(texts) == bool(shown)
    assert all(shown in text for text in texts)
