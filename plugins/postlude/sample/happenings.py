"""What other systems of the sample shop tell: checkouts, wishes, visits, failed payments, club memberships and more.

Every kind of docs/happenings.md that a shop tells is there, mostly in the last days, so that each campaign has work.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from postlude.sample.people import Table

if TYPE_CHECKING:
    from postlude.sample.purchases import Era

DAY, HOUR = 86_400, 3_600
KINDS = (
    "checkout_started", "product_watched", "frustration", "payment_failed", "payment_succeeded", "damaged",
    "carrier_exception", "guest_order", "visited", "lead_created", "trial_started", "call_booked", "community_joined",
    "referral_made", "loyalty_joined", "poll_opened", "service_notice",
)  # fmt: skip
# of all customers, within so many days before today's end
_OF_CUSTOMERS = {
    "checkout_started": (0.03, 6), "product_watched": (0.05, 90), "frustration": (0.01, 3), "payment_failed": (0.008, 8),
    "visited": (0.30, 75), "lead_created": (0.01, 10), "trial_started": (0.004, 10), "call_booked": (0.002, 20),
    "community_joined": (0.02, 300), "referral_made": (0.01, 60), "poll_opened": (0.01, 4), "service_notice": (0.003, 2),
}  # fmt: skip
PAID_CLUB = 0.08  # of those who join


def told(rng: np.random.Generator, era: Era, people: Table, orders: Table, products: int) -> Table:
    """The events about these customers and orders; `nth` is the order it is about, 0 for none."""
    parts: list[Table] = []
    size = len(people["customer"])

    def add(
        kind: str, customer: np.ndarray, at: np.ndarray, nth: np.ndarray | int = 0, club: np.ndarray | int = 0
    ) -> None:
        rows = len(customer)
        parts.append({
            "customer": customer, "kind": np.full(rows, KINDS.index(kind) + 1), "at": at, "since": at,
            "nth": np.broadcast_to(nth, rows), "club": np.broadcast_to(club, rows),
            "product": rng.integers(1, products + 1, rows), "second": rng.integers(1, products + 1, rows),
            "number": rng.integers(1, 1_000_000, rows),
        })  # fmt: skip

    for kind, (share, days) in _OF_CUSTOMERS.items():
        at = era.end - rng.integers(1, days * DAY, size)
        rows = np.flatnonzero((rng.random(size) < share) & (at > people["created_at"]) & ~people["marketplace"])
        add(kind, people["customer"][rows], at[rows])
        if kind == "payment_failed":  # half of them pay within two days
            paid = rows[rng.random(len(rows)) < 0.5]
            add("payment_succeeded", people["customer"][paid], at[paid] + rng.integers(HOUR, 2 * DAY, len(paid)))
            parts[-1]["number"] = parts[-2]["number"][np.isin(rows, paid)]

    count = len(orders["customer"])
    own = orders["marketplace"] == 0
    arrives, placed = orders["arrives_at"], orders["placed_at"]
    draw = rng.random((3, count))
    lately = (arrives > era.end - 12 * DAY) & own
    rows = np.flatnonzero(lately & (draw[0] < 0.01))
    add("damaged", orders["customer"][rows], arrives[rows] + 2 * HOUR, orders["nth"][rows])
    rows = np.flatnonzero(orders["late"] & own & (placed > era.end - 20 * DAY) & (draw[1] < 0.3))
    add("carrier_exception", orders["customer"][rows], placed[rows] + 3 * DAY, orders["nth"][rows])
    rows = np.flatnonzero((orders["nth"] == 1) & own & (placed > era.end - 6 * DAY) & (draw[2] < 0.2))
    add("guest_order", orders["customer"][rows], placed[rows], orders["nth"][rows])

    joins, pays = rng.random((2, count))
    rows = np.flatnonzero((orders["nth"] == 1) & own & (joins < 0.3))
    paid = pays[rows] < PAID_CLUB
    at = placed[rows] + rng.integers(DAY // 2, 4 * DAY, len(rows))
    add("loyalty_joined", orders["customer"][rows], at, 0, paid.astype(np.int64))
    renewed = rows[paid & (at < era.end - 364 * DAY)]
    due = at[paid & (at < era.end - 364 * DAY)] + 364 * DAY
    kept = rng.random(len(renewed)) < 0.85
    add("payment_succeeded", orders["customer"][renewed[kept]], due[kept], 0, 1)
    return {column: np.concatenate([part[column] for part in parts]) for column in parts[0]}


def versions(table: Table, now_ish: int) -> Table:
    """The catalogue with an earlier version of some products: out of stock until lately, or dearer until lately."""
    age = now_ish - table["updated_at"]
    lately = age < 12 * DAY
    back = np.flatnonzero(lately & table["in_stock"] & (table["product"] % 2 == 0))
    dearer = np.flatnonzero(lately & (table["product"] % 2 == 1))
    before = np.concatenate([back, dearer])
    old = {column: values[before].copy() for column, values in table.items()}
    old["updated_at"] = old["updated_at"] - 9 * DAY
    old["in_stock"][: len(back)] = False
    old["stock"][: len(back)] = 0
    old["cents"][len(back) :] = old["cents"][len(back) :] * 5 // 4
    return {column: np.concatenate([old[column], values]) for column, values in table.items()}
