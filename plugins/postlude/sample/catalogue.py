"""What the sample shop sells: about 300 products in eight categories, each with a price and a usual companion."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

# fmt: off
# category: SKU prefix, cheapest and dearest price in EUR, nouns, adjectives
_RANGE: dict[str, tuple[str, float, float, str, str]] = {
    "service": (
        "SRV", 9, 60, "Engraving,Leather repair,Alteration,Gift wrapping,Cleaning,Sharpening",
        "Basic,Express,Deluxe,Seasonal",
    ),
    "consumable": (
        "CON", 4, 26, "Coffee beans,Green tea,Soy candle,Olive soap,Room spray,Ink refill,Shoe polish",
        "Mild,Dark,Citrus,Cedar,Lavender,Smoked,Classic",
    ),
    "apparel": (
        "APP", 15, 120, "Linen shirt,Wool jumper,Rain jacket,Denim jeans,Cotton dress,Knit cap,Silk scarf",
        "Navy,Sand,Olive,Charcoal,Ivory,Rust,Sky",
    ),
    "makeup": (
        "MKP", 8, 46, "Lip balm,Mascara,Foundation,Eyeliner,Blush,Nail polish",
        "Rose,Coral,Nude,Plum,Amber,Clear,Berry",
    ),
    "leather": (
        "LEA", 45, 380, "Tote bag,Wallet,Belt,Briefcase,Card holder,Weekender", "Cognac,Black,Tan,Oxblood,Walnut,Stone",
    ),
    "electronics": (
        "ELE", 19, 450, "Headphones,Desk lamp,Espresso machine,Radio,Charger,Keyboard,Milk frother",
        "Compact,Studio,Travel,Quiet,Solar,Retro",
    ),
    "home": (
        "HOM", 9, 160, "Throw blanket,Stoneware bowl,Wall clock,Linen sheet,Plant pot,Cutting board,Vase",
        "Nordic,Speckled,Oak,Indigo,Terracotta,Marble,Woven",
    ),
    "books": (
        "BOK", 8, 42, "Cookbook,Garden guide,Travel atlas,Photo book,Poetry collection,Craft manual",
        "Illustrated,Pocket,Annotated,Seaside,Mountain,City,Winter",
    ),
}
# fmt: on


@dataclass(frozen=True)
class Catalogue:
    """The products in ascending order of price; arrays run over the products."""

    sku: list[str]
    name: list[str]
    category: list[str]
    cents: np.ndarray
    popularity: np.ndarray  # 0..1, higher is bought more often
    companion: np.ndarray  # position of the cheap product that is often bought along with this one
    in_stock: np.ndarray
    stock: np.ndarray  # pieces there
    age: np.ndarray  # seconds since the last change of the catalogue entry


def catalogue(rng: np.random.Generator) -> Catalogue:
    """Draw the catalogue; it depends on the seed alone."""
    rows: list[tuple[int, str, str, str]] = []
    for category, (prefix, low, high, nouns, adjectives) in _RANGE.items():
        names = [f"{noun}, {adjective.lower()}" for noun in nouns.split(",") for adjective in adjectives.split(",")]
        prices = np.exp(rng.uniform(np.log(low), np.log(high), len(names)))
        for number, (name, price) in enumerate(zip(names, prices, strict=True), start=1):
            cents = int(price) * 100 + (90 if rng.random() < 0.7 else 50)  # as prices in shops end
            rows.append((cents, f"{prefix}-{number:03d}", name, category))
    rows.sort()
    size = len(rows)
    prices_in_cents = np.array([row[0] for row in rows], dtype=np.int64)
    cheap = np.flatnonzero(prices_in_cents < 2000)
    shelf = Catalogue(
        sku=[row[1] for row in rows],
        name=[row[2] for row in rows],
        category=[row[3] for row in rows],
        cents=prices_in_cents,
        popularity=rng.random(size),
        companion=rng.choice(cheap, size),
        in_stock=rng.random(size) < 0.94,
        stock=np.zeros(size, dtype=np.int64),
        age=rng.integers(3600, 60 * 86400, size),
    )
    return replace(shelf, stock=np.where(shelf.in_stock, rng.integers(1, 60, size), 0))


def pick(rng: np.random.Generator, shelf: Catalogue, target: np.ndarray) -> np.ndarray:
    """Positions of products priced about `target` (cents); the more popular of two near neighbours wins."""
    near = np.searchsorted(shelf.cents, target)
    first, second = (np.clip(near + rng.integers(-9, 10, len(target)), 0, len(shelf.cents) - 1) for _ in range(2))
    return np.where(shelf.popularity[first] >= shelf.popularity[second], first, second)


def table(shelf: Catalogue, until: int) -> dict[str, Any]:
    """The catalogue as one array per column."""
    return {
        "product": np.arange(1, len(shelf.sku) + 1), "cents": shelf.cents, "in_stock": shelf.in_stock,
        "stock": shelf.stock, "updated_at": until - shelf.age,
    }  # fmt: skip
