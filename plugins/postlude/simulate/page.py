"""A simulation as one self-contained HTML page with plots (SVG, no script, nothing fetched)."""

from __future__ import annotations

from collections import Counter
from typing import Any

from jinja2 import Environment, StrictUndefined

from postlude.report import _svg
from postlude.settings import settings


def page(summary: dict[str, Any], contract: list[str] | None = None) -> str:
    """The page of a summary; contract: sentences of a comparison, shown first."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["n"] = lambda value: "no limit" if value is None else f"{value:,}"
    template = (settings().include / "templates" / "simulation.html.j2").read_text(encoding="utf-8")
    charts = {name: _svg(chart) for name, chart in _charts(summary).items()}
    return environment.from_string(template).render(
        s=summary, charts=charts, contract=contract or [], reasons=_reasons(summary), steps=_steps(summary)
    )


def _steps(summary: dict[str, Any]) -> list[dict[str, Any]]:
    totals: dict[tuple[str, str], Counter[str]] = {}
    for row in summary["days"]:
        totals.setdefault((row["campaign"], row["step"]), Counter()).update(
            {key: row[key] for key in ("sent", "planned", "put_off", "lost")}
        )
    return [{"campaign": campaign, "step": step, **found} for (campaign, step), found in sorted(totals.items())]


def _reasons(summary: dict[str, Any]) -> list[dict[str, Any]]:
    totals: Counter[tuple[str, str, str]] = Counter()
    for row in summary["reasons"]:
        totals[row["campaign"], row["state"], row["reason"]] += row["messages"]
    for row in summary["refusals"]:
        totals[row["campaign"], "not enrolled", row["reason"]] += row["customers"]
    return [
        {"campaign": campaign, "state": state, "reason": reason, "messages": n}
        for (campaign, state, reason), n in totals.most_common()
    ]


def _charts(summary: dict[str, Any]) -> dict[str, Any]:
    import altair as alt
    import pandas as pd

    charts: dict[str, Any] = {}
    day = alt.X("day:T", title=None, axis=alt.Axis(format="%d %b"))
    if sent := [row for row in summary["days"] if row["sent"]]:
        frame = pd.DataFrame(sent).groupby(["day", "campaign"], as_index=False)["sent"].sum()
        charts["days"] = (
            alt.Chart(frame.assign(day=pd.to_datetime(frame["day"])))
            .mark_bar(width=9)
            .encode(x=day, y=alt.Y("sent:Q", title="messages sent"), color=alt.Color("campaign:N", title=None))
            .properties(width=700, height=220)
        )
    if summary["reasons"]:
        frame = pd.DataFrame(summary["reasons"]).groupby(["day", "reason"], as_index=False)["messages"].sum()
        charts["reasons"] = (
            alt.Chart(frame.assign(day=pd.to_datetime(frame["day"])))
            .mark_bar(width=9)
            .encode(x=day, y=alt.Y("messages:Q", title="not sent that day"), color=alt.Color("reason:N", title=None))
            .properties(width=700, height=180)
        )
    if summary["providers"]:
        frame = pd.DataFrame(summary["providers"])
        largest = frame.groupby("provider")["messages"].sum().nlargest(8).index
        frame["provider"] = frame["provider"].where(frame["provider"].isin(largest), "others")
        frame = frame.groupby(["day", "provider"], as_index=False)["messages"].sum()
        charts["providers"] = (
            alt.Chart(frame.assign(day=pd.to_datetime(frame["day"])))
            .mark_line()
            .encode(x=day, y=alt.Y("messages:Q", title="messages a day"), color=alt.Color("provider:N", title=None))
            .properties(width=700, height=180)
        )
    if limited := [row for row in summary["coupons"] if row["left"] is not None]:
        frame = pd.DataFrame(limited)
        charts["coupons"] = (
            alt.Chart(frame.assign(day=pd.to_datetime(frame["day"])))
            .mark_line(interpolate="step-after")
            .encode(x=day, y=alt.Y("left:Q", title="codes left"), color=alt.Color("pool:N", title=None))
            .properties(width=700, height=150)
        )
    return charts
