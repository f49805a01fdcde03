"""Price and stock are claims: at hand-over they are compared with the catalogue, put right, or the mail is not sent."""

from __future__ import annotations

from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import Connection, text

from postlude import claims, rendering
from postlude.rendering import samples


def row(**now: Any) -> dict[str, Any]:
    return {"name": None, "price": Decimal("18.00"), "url": None, "image_url": None, "in_stock": True} | now


ANA = samples()["ana"]
MUG, TOTE, TAG = "MUG-007", "BAG-120", "ACC-031"


def test_a_price_that_changed_since_the_event_is_told_as_it_is_now() -> None:
    told = claims.fresh(ANA, {MUG: row(price=Decimal("17.50"))}, {"product"})
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
        claims.fresh(ANA, {MUG: now}, {"product", "customer"})
    assert claims.fresh(ANA, {MUG: now}, {"customer"}) == ANA, "a mail that does not show it goes out"


def test_stock_nobody_counts_and_articles_nobody_lists_keep_no_mail_back() -> None:
    assert claims.fresh(ANA, {MUG: row(in_stock=None)}, {"product"})["product"]["price"] == Decimal("18.00")
    assert claims.fresh(ANA, {}, {"product", "cart"}) == ANA


def test_a_cart_shows_what_can_still_be_bought_at_the_price_of_now() -> None:
    told = claims.fresh(ANA, {TOTE: row(price=Decimal("20.00")), TAG: row(in_stock=False)}, {"cart"})["cart"]
    assert [(item["sku"], item["amount"]) for item in told["items"]] == [(TOTE, Decimal("40.00"))]
    assert told["amount"] == Decimal("40.00")
    with pytest.raises(claims.ClaimOutdated, match="nothing of the cart"):
        claims.fresh(ANA, {TOTE: row(in_stock=False), TAG: row(in_stock=False)}, {"cart"})


def test_a_template_tells_what_it_speaks_of() -> None:
    theme = rendering.load_theme()
    assert "coupon" in rendering.speaks_of("win_back/coupon", "en", theme)
    assert "product" not in rendering.speaks_of("win_back/coupon", "ko", theme)
    assert {"item", "links"} <= rendering.speaks_of("feedback_30d/ask", "ja", theme)


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
