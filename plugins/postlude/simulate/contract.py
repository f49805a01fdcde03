"""The calendar is a contract: what a change does over the coming weeks, in people, before it is saved.

Two simulations of the same days, with and without the change. Messages have ids made of what they are, so each is found again in
the other run: who moves, who loses a mail, who gets one, is counted one by one and not estimated. Once the change is saved, the next
simulation gives the same numbers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

from sqlalchemy.engine import URL

from postlude.calendar import Calendar
from postlude.simulate import Story, Wanted, run
from postlude.simulate.figures import WENT

if TYPE_CHECKING:
    import pandas as pd

NEAR = timedelta(days=4)  # a peak so close to a day of the calendar is about that day
MOST_LINES = 4  # of one kind and step; the rest is summed up


@dataclass
class Contract:
    """What the change does. words: sentences; figures: plain JSON; before, after: the two simulations."""

    words: list[str]
    figures: dict[str, Any]
    before: Story
    after: Story


def compare(
    url: URL,
    draft: Calendar,
    wanted: Wanted,
    progress: Callable[[int, int], None] | None = None,
    *,
    template: bool = True,
) -> Contract:
    """Simulate without and with the draft, on two copies of the database. progress counts the days of both."""

    def half(offset: int) -> Callable[[int, int], None] | None:
        return (lambda done, of: progress(offset * of + done, 2 * of)) if progress else None

    before = run(url, replace(wanted, calendar=None), half(0), template=template)
    after = run(url, replace(wanted, calendar=draft), half(1), template=template)
    figures = differences(before, after, draft, wanted)
    return Contract(in_words(figures), figures, before, after)


def differences(before: Story, after: Story, draft: Calendar, wanted: Wanted) -> dict[str, Any]:
    """All figures of the comparison; people are counted once per line."""
    both = _side_by_side(before.rows, after.rows)
    went, goes = both["state_b"].isin(WENT), both["state_a"].isin(WENT)
    waits = both["state_a"].isin(["scheduled", "held", "sending"])
    moved = both[went & goes & (both["day_b"] != both["day_a"])]
    step = ["campaign", "step"]
    return {
        "from": wanted.first.isoformat(), "until": wanted.until.isoformat(), "future": wanted.future,
        "sent": {"before": int(went.sum()), "after": int(goes.sum())},
        "moved": _people(moved, [*step, "day_b", "day_a"], ("from_day", "to_day")),
        "lost": _people(both[went & ~goes & ~waits].assign(reason=lambda f: f["reason_a"].fillna("not_planned")), [*step, "reason"]),
        "after_the_window": _people(both[went & ~goes & waits], step),
        "gained": _people(both[~went & goes], step),
        "coupons": _coupons(before, after),
        "capped": _capped(before, after, draft),
        "in_flight": _in_flight(both, draft, wanted),
        "held": [gate for gate in after.summary["gates"] if gate not in before.summary["gates"]],
    }  # fmt: skip


def _side_by_side(before: pd.DataFrame, after: pd.DataFrame) -> pd.DataFrame:
    """One row per message of either run; day: of the passage, in days from its anchor."""
    keys = ["message_id", "campaign", "step", "customer_id"]

    def side(rows: pd.DataFrame) -> pd.DataFrame:
        days = (rows["handed_over_at"].dt.normalize() - rows["anchor_at"].dt.normalize()).dt.days
        return rows[[*keys, "state", "reason", "planned_at", "handed_over_at"]].assign(day=days)

    return side(before).merge(side(after), on=keys, how="outer", suffixes=("_b", "_a"))


def _people(frame: pd.DataFrame, keys: list[str], names: tuple[str, ...] = ()) -> list[dict[str, Any]]:
    if not len(frame):
        return []
    counted = frame.groupby(keys)["customer_id"].nunique().sort_values(ascending=False, kind="stable")
    labels = [*keys[: len(keys) - len(names)], *names]
    return [
        {label: int(value) if label in names else value for label, value in zip(labels, key, strict=True)}
        | {"customers": int(n)}
        for key, n in counted.items()
    ]


def _coupons(before: Story, after: Story) -> list[dict[str, Any]]:
    """Per pool the first day on which more messages wait for a code than without the change, and the worst one."""
    was = {(row["day"], row["pool"]): row for row in before.summary["coupons"]}
    found: dict[str, dict[str, Any]] = {}
    for row in after.summary["coupons"]:
        more = row["short"] - was.get((row["day"], row["pool"]), {"short": 0})["short"]
        if more <= 0:
            continue
        line = found.setdefault(
            row["pool"], {"pool": row["pool"], "first": row["day"], "day": row["day"], "short": 0, "more": 0}
        )
        if row["short"] > line["short"]:
            line |= {"day": row["day"], "short": row["short"], "more": more}
    return [found[pool] for pool in sorted(found)]


def _capped(before: Story, after: Story, draft: Calendar) -> dict[str, Any]:
    """Who meets the cap on some day, of all who are to get something; and on which day most do."""
    people, customers, peak = {}, {}, None
    for name, story in (("before", before), ("after", after)):
        met = story.put_off[story.put_off["reason"] == "capped"].merge(
            story.rows[["message_id", "customer_id"]], on="message_id"
        )
        people[name] = int(met["customer_id"].nunique())
        customers[name] = int(story.rows["customer_id"].nunique())
        if name == "after" and len(met):
            peak = met.groupby("day")["customer_id"].nunique().idxmax()
    share = people["after"] / customers["after"] if customers["after"] else 0.0
    return {
        "before": people["before"], "after": people["after"], "of": customers["after"], "share": round(share, 4),
        "day": str(peak) if peak else None, "near": _near(draft, peak) if peak else None,
    }  # fmt: skip


def _near(draft: Calendar, day: date) -> str | None:
    named = [(entry.date, entry.why) for entry in draft.occasions]
    named += [(entry.date, entry.why) for entry in draft.blackout_days]
    named += [(special.date, special.name) for special in draft.specials]
    close = sorted((abs(when - day), why) for when, why in named if why and abs(when - day) <= NEAR)
    return close[0][1] if close else None


def _in_flight(both: pd.DataFrame, draft: Calendar, wanted: Wanted) -> list[dict[str, Any]]:
    """Per moved step what becomes of the mails that were planned before: keep their day, move, are lost."""
    found = []
    for delay in draft.delays:
        rows = both[
            (both["campaign"] == delay.campaign) & (both["step"] == delay.step) & (both["planned_at_b"] < wanted.first)
        ]
        rows = rows[~(rows["handed_over_at_b"] < wanted.first)]
        if not len(rows):
            continue
        went, goes = rows["state_b"].isin(WENT), rows["state_a"].isin(WENT)
        waits = rows["state_a"].isin(["scheduled", "held", "sending"])
        found.append({
            "campaign": delay.campaign, "step": delay.step, "choice": delay.in_flight,
            "messages": len(rows), "keep": int((went & goes & (rows["day_b"] == rows["day_a"])).sum()),
            "move": int((went & goes & (rows["day_b"] != rows["day_a"])).sum()), "later": int((went & waits).sum()),
            "lose": int((went & ~goes & ~waits).sum()), "gain": int((~went & goes).sum()),
            "neither": int((~went & ~goes).sum()),
        })  # fmt: skip
    return found


# ---------------------------------------------------------------- in words


def in_words(figures: dict[str, Any]) -> list[str]:
    """The comparison in sentences, the weightiest first."""
    lines = [f"{figures['sent']['after']:,} messages are sent from {figures['from'][:10]} to {figures['until'][:10]} "
             f"instead of {figures['sent']['before']:,}"]  # fmt: skip
    lines += _few(figures["moved"], "move", lambda r: f"from day {r['from_day']} to day {r['to_day']} ({_step(r)})")
    lines += _few(figures["lost"], "lose", lambda r: f"{_step(r)}: {r['reason']}")
    lines += _few(figures["gained"], "also get", _step)
    lines += _few(figures["after_the_window"], "get", lambda r: f"{_step(r)} only after {figures['until'][:10]}")
    for row in figures["coupons"]:
        lines.append(
            f"coupon pool {row['pool']} is short by {row['short']:,} on {row['day']} ({row['more']:,} more than without)"
        )
    capped = figures["capped"]
    if capped["after"] != capped["before"] and capped["after"]:
        where = f", most of them on {capped['day']}" + (f", near “{capped['near']}”" if capped["near"] else "")
        lines.append(
            f"{capped['share']:.0%} meet the cap ({capped['after']:,} of {capped['of']:,} customers{where}) instead of {capped['before']:,}"
        )
    for row in figures["in_flight"]:
        lines.append(
            f"in flight for {_step(row)} ({row['choice']}): {row['messages']:,} planned mails; {row['keep']:,} keep their day, "
            f"{row['move']:,} move, {row['later']:,} go after the window, {row['lose']:,} are lost, "
            f"{row['neither'] + row['gain']:,} were not due in it"
        )
    for gate in figures["held"]:
        lines.append(
            f"{gate['campaign']} waits for an approval on {gate['day']}: {gate.get('messages') or 0:,} messages "
            f"({', '.join(gate.get('causes') or [gate['gate']])})"
        )
    if len(lines) == 1 and figures["sent"]["after"] == figures["sent"]["before"]:
        return [f"nothing changes for anybody from {figures['from'][:10]} to {figures['until'][:10]}"]
    return lines


def _few(rows: list[dict[str, Any]], verb: str, said: Callable[[dict[str, Any]], str]) -> list[str]:
    lines = []
    for row in rows[:MOST_LINES]:
        who = f"1 customer {verb}s" if row["customers"] == 1 else f"{row['customers']:,} customers {verb}"
        lines.append(f"{who} {said(row)}")
    if rest := rows[MOST_LINES:]:
        lines.append(f"{sum(row['customers'] for row in rest):,} more {verb} in {len(rest):,} other ways")
    return lines


def _step(row: dict[str, Any]) -> str:
    return f"{row['campaign']}/{row['step']}"
