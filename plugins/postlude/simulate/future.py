"""Invented future orders, drawn from each customer's own history; the same seed draws the same.

Who has bought often comes back after one of their own gaps, drawn anew each time; who bought once or twice comes back as often, and
after such gaps, as customers of the shop do. A gap that is over already is not drawn. Who has been silent for three times their
longest gap is gone. An order is one of the customer's own earlier ones once more: its lines, its amount, its days to delivery.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Engine

from postlude import db


def draw_orders(engine: Engine, first: datetime, until: datetime, seed: int) -> int:
    """Fill `future_orders` with what is placed from `first` to `until`; how many. They are told to the stages day by day."""
    with db.transaction(engine) as conn:
        return db.run(conn, "85_draw_orders", first=first, until=until, seed=str(seed)).rowcount
