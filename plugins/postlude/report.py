"""The report: one self-contained HTML page with plots (SVG, no script, nothing fetched), and its figures.

It only reads. Counts, reasons and ids; nobody's name or address.
"""

from __future__ import annotations

import math
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from jinja2 import Environment, StrictUndefined
from sqlalchemy import Connection

from postlude import answers, db
from postlude.settings import settings

if TYPE_CHECKING:
    import pandas as pd

WATCH = timedelta(days=30)
STAGE_COLOURS = {"new": "#4c9f70", "active": "#2f6db3", "at_risk": "#d9902f", "lapsed": "#b0413e"}
STATE_COLOURS = {
    "sent": "#2f6db3", "scheduled": "#9bbbe0", "held": "#c9b458", "skipped": "#d9902f", "cancelled": "#a5a5a5",
    "expired": "#7a6a5d", "failed": "#b0413e", "unknown": "#8e44ad", "sending": "#4c9f70",
}  # fmt: skip


class Difference(NamedTuple):
    """Order rate, treated minus holdout, with a 95 % interval (shares, not per cent)."""

    difference: float
    low: float
    high: float


def newcombe(treated: int, of_treated: int, holdout: int, of_holdout: int, z: float = 1.959963984540054) -> Difference:
    """Difference of two rates with Newcombe's interval (method 10: hybrid of two Wilson score intervals).

    treated, holdout: people who ordered, of so many enrolled. Raises ValueError when an arm is empty.
    Source: Newcombe (1998), Statistics in Medicine 17, 873-890.
    """
    if not of_treated or not of_holdout:
        raise ValueError("an empty arm has no rate")

    p1, l1, u1 = answers.wilson(treated, of_treated, z)
    p2, l2, u2 = answers.wilson(holdout, of_holdout, z)
    low = (p1 - p2) - math.sqrt((p1 - l1) ** 2 + (u2 - p2) ** 2)
    high = (p1 - p2) + math.sqrt((u1 - p1) ** 2 + (p2 - l2) ** 2)
    return Difference(p1 - p2, low, high)


def write(conn: Connection, now: datetime, folder: Path) -> tuple[Path, dict[str, Any]]:
    """Write report-<instant>.html and latest.html into `folder`; returns the path and flat figures."""
    found = figures(conn, now)
    said = answers.rows(conn, now)
    plots = _charts(found, now)
    if (plot := answers.chart(said["shown"])) is not None:
        plots["answers"] = plot
    charts = {name: _svg(chart) for name, chart in plots.items()}
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {"n": lambda v: f"{v:,}", "pct": lambda v: f"{100 * v:+.1f} %", "when": _when}
    template = (settings().include / "templates" / "report.html.j2").read_text(encoding="utf-8")
    page = environment.from_string(template).render(
        now=now,
        charts=charts,
        watch=WATCH.days,
        **_rows(found),
        effect=_effect(found["effect"]),
        answers=said,
        least_answers=answers.LEAST,
    )
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"report-{now:%Y%m%dT%H%M%SZ}.html"
    for target in (path, folder / "latest.html"):
        fresh = target.with_suffix(".tmp")
        fresh.write_text(page, encoding="utf-8")
        fresh.replace(target)  # a reader never sees half a page
    states = found["states"].groupby("state")["messages"].sum().to_dict() if len(found["states"]) else {}
    return path, {
        "customers": int(found["stages"]["customers"].sum()) if len(found["stages"]) else 0,
        **{f"messages_{state}": int(count) for state, count in sorted(states.items())},
        "quarantined": int(found["sources"]["quarantined"].sum()) if len(found["sources"]) else 0,
        "unknown": len(found["unknown"]),
        "coupon_pools_low": int(found["coupons"]["low"].sum()) if len(found["coupons"]) else 0,
    }


def figures(conn: Connection, now: datetime) -> dict[str, pd.DataFrame]:
    """All figures of the report, one frame each; every frame has its columns even when empty."""
    import pandas as pd

    def frame(name: str, **params: Any) -> pd.DataFrame:
        result = db.run(conn, name, **params)
        return pd.DataFrame(result.all(), columns=list(result.keys()))

    return {
        "sources": frame("60_report_sources", now=now),
        "quarantine": frame("61_report_quarantine"),
        "stages": frame("62_report_stages"),
        "segments": frame("62_report_segments", now=now),
        "states": frame("63_report_states"),
        "enrolments": frame("63_report_enrolments"),
        "reasons": frame("64_report_reasons"),
        "days": frame("65_report_days", now=now),
        "effect": frame("66_report_effect", now=now, watch=WATCH),
        "gates": frame("67_report_gates", now=now),
        "unknown": frame("68_report_unknown", now=now),
        "coupons": frame("48_coupon_stock", now=now),
    }


def _rows(found: dict[str, pd.DataFrame]) -> dict[str, Any]:
    return {name: frame.to_dict("records") for name, frame in found.items() if name != "effect"}


def _effect(frame: pd.DataFrame) -> list[dict[str, Any]]:
    lines = []
    for campaign, arms in frame.groupby("campaign"):
        by_arm = {row["arm"]: row for row in arms.to_dict("records")}
        treated, holdout = by_arm.get("treated"), by_arm.get("holdout")
        if not treated or not holdout:
            continue
        lines.append({
            "campaign": campaign, "treated": treated, "holdout": holdout,
            "difference": newcombe(treated["ordered"], treated["people"], holdout["ordered"], holdout["people"]),
        })  # fmt: skip
    return lines


def _when(value: Any) -> str:
    """Minute precision, UTC; missing values as a dash."""
    return f"{value:%Y-%m-%d %H:%M}" if isinstance(value, datetime) and not math.isnan(value.timestamp()) else "–"


# ---------------------------------------------------------------- plots


def _charts(found: dict[str, pd.DataFrame], now: datetime) -> dict[str, Any]:
    """Vega-Lite charts by name; a chart without data is left out."""
    import altair as alt
    import pandas as pd

    charts: dict[str, Any] = {}
    if len(stages := found["stages"]):
        base = alt.Chart(stages[["stage", "customers"]]).encode(
            y=alt.Y("stage:N", sort=None, title=None), x=alt.X("customers:Q", title="customers")
        )
        bars = base.mark_bar().encode(
            color=alt.Color(
                "stage:N", legend=None, scale=alt.Scale(domain=list(STAGE_COLOURS), range=list(STAGE_COLOURS.values()))
            )
        )
        charts["stages"] = (
            bars + base.mark_text(align="left", dx=4).encode(text=alt.Text("customers:Q", format=","))
        ).properties(width=520, height=130)
    if len(states := found["states"]):
        shown = states[["campaign", "state", "messages"]].groupby(["campaign", "state"], as_index=False).sum()
        charts["states"] = (
            alt.Chart(shown)
            .mark_bar()
            .encode(
                y=alt.Y("campaign:N", title=None),
                x=alt.X("messages:Q", title="messages"),
                color=alt.Color(
                    "state:N",
                    title=None,
                    scale=alt.Scale(domain=list(STATE_COLOURS), range=list(STATE_COLOURS.values())),
                ),
            )
            .properties(width=520, height=40 * max(2, shown["campaign"].nunique()))
        )
    if len(days := found["days"]):
        shown = days.assign(day=pd.to_datetime(days["day"]))
        today = (
            alt.Chart(pd.DataFrame({"day": [pd.Timestamp(now.date())]})).mark_rule(strokeDash=[4, 3]).encode(x="day:T")
        )
        bars = (
            alt.Chart(shown)
            .mark_bar(width=8)
            .encode(
                x=alt.X("day:T", title=None, axis=alt.Axis(format="%d %b")),
                y=alt.Y("messages:Q"),
                color=alt.Color("campaign:N", title=None),
                opacity=alt.Opacity("what:N", title=None, scale=alt.Scale(domain=["sent", "planned"], range=[1, 0.45])),
            )
        )
        charts["days"] = (bars + today).properties(width=640, height=220)
    if len(segments := found["segments"]) and segments["as_of"].nunique() > 1:
        shown = segments.assign(as_of=pd.to_datetime(segments["as_of"], utc=True))
        charts["segments"] = (
            alt.Chart(shown)
            .mark_line(point=True)
            .encode(x=alt.X("as_of:T", title=None), y="customers:Q", color=alt.Color("segment:N", title=None))
            .properties(width=640, height=220)
        )
    return charts


def _svg(chart: Any) -> str:
    """The chart as an SVG element: no script, no font or data fetched."""
    import vl_convert

    spec = (
        chart.configure_view(stroke=None)
        .configure_axis(grid=False, labelFont="sans-serif", titleFont="sans-serif")
        .to_json()
    )
    svg = str(vl_convert.vegalite_to_svg(spec))
    return svg[svg.index("<svg") :]
