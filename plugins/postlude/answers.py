"""What customers answered: satisfied shares (stars) and promoters less detractors (0 to 10), each with its uncertainty.

CSAT is the share of four and five stars of five, NPS the share of 9 and 10 less that of 0 to 6. Both come with the number of
answers and Wilson's interval; what fewer than LEAST answered is not shown.
"""

from __future__ import annotations

import math
from datetime import datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from sqlalchemy import Connection

from postlude import db

if TYPE_CHECKING:
    import pandas as pd

LEAST = 10
SHOWN = 12  # products and the like, by number of answers
_ORDER = ("all", "month", "category", "campaign", "product")


class Share(NamedTuple):
    """A share with its 95 % interval, 0 to 1."""

    share: float
    low: float
    high: float


def wilson(hits: int, n: int, z: float = 1.959963984540054) -> Share:
    """Wilson's score interval of a rate. Raises ValueError without any trial. Source: Wilson (1927), JASA 22, 209-212."""
    if n <= 0:
        raise ValueError("no answers have no share")
    p = hits / n
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    # rounding must not take 0 of n below 0
    return Share(p, max(centre - half, 0.0), min(centre + half, 1.0))


def nps(promoters: int, detractors: int, n: int) -> Share:
    """Promoters less detractors, -1 to 1. The two Wilson intervals are put together as for a paired difference (Newcombe 1998,
    Statistics in Medicine 17, 2635-2650, method 10), with the correlation of two answers of one person that exclude each other."""
    p, d = wilson(promoters, n), wilson(detractors, n)
    spread = math.sqrt(p.share * (1 - p.share) * d.share * (1 - d.share))
    phi = -p.share * d.share / spread if spread else 0.0
    below = (p.share - p.low) ** 2 - 2 * phi * (p.share - p.low) * (d.high - d.share) + (d.high - d.share) ** 2
    above = (p.high - p.share) ** 2 - 2 * phi * (p.high - p.share) * (d.share - d.low) + (d.share - d.low) ** 2
    score = p.share - d.share
    return Share(score, max(score - math.sqrt(below), -1.0), min(score + math.sqrt(above), 1.0))


def rows(conn: Connection, now: datetime) -> dict[str, Any]:
    """`shown`: dicts with scale, delivery (asked about it), dimension, name, answers, share, low, high; `hidden`: too small to show,
    as (dimension, cells, answers)."""
    shown: list[dict[str, Any]] = []
    hidden: dict[str, tuple[int, int]] = {}
    taken: dict[tuple[int, bool, str], int] = {}
    for row in db.run(conn, "69_report_answers", now=now, least=LEAST):
        n = int(row.answers)
        if row.name is None:
            cells, answers = hidden.get(row.dimension, (0, 0))
            hidden[row.dimension] = cells + int(row.cells), answers + n
            continue
        key = row.scale, row.delivery, row.dimension
        taken[key] = taken.get(key, 0) + 1
        if row.dimension not in ("month", "all") and taken[key] > SHOWN:
            continue
        found = wilson(int(row.good), n) if row.scale == 5 else nps(int(row.promoters), int(row.detractors), n)
        shown.append(
            {
                "scale": row.scale,
                "delivery": row.delivery,
                "dimension": row.dimension,
                "name": row.name,
                "answers": n,
                **found._asdict(),
            }
        )
    shown.sort(key=lambda cell: (cell["scale"], cell["delivery"], _ORDER.index(cell["dimension"])))
    return {"shown": shown, "hidden": [(name, *hidden[name]) for name in _ORDER if name in hidden]}


def chart(shown: list[dict[str, Any]]) -> Any:
    """Satisfied shares by month and category with their intervals, as an Altair chart; None without any."""
    import altair as alt
    import pandas as pd

    cells = [
        cell
        for cell in shown
        if cell["scale"] == 5 and not cell["delivery"] and cell["dimension"] in ("month", "category")
    ]
    if not cells:
        return None
    frame: pd.DataFrame = pd.DataFrame(cells)
    base = alt.Chart(frame).encode(
        y=alt.Y("name:N", title=None, sort=None),
        color=alt.Color("dimension:N", legend=None, scale=alt.Scale(range=["#2f6db3", "#4c9f70"])),
    )
    share: dict[str, Any] = {"scale": alt.Scale(domain=[0, 1]), "axis": alt.Axis(format="%")}
    points = base.mark_point(filled=True, size=70).encode(x=alt.X("share:Q", title="four or five stars", **share))
    lines = base.mark_rule(strokeWidth=2).encode(x=alt.X("low:Q", **share), x2="high:Q")
    return (lines + points).properties(width=520, height=22 * len(cells))
