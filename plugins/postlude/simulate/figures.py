"""What came of a simulation: every message of the window as a row, and the sums people look at."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sqlalchemy import Engine
from sqlalchemy.engine import URL

from postlude import calendar, db
from postlude.providers import provider_of
from postlude.simulate.log import Log

if TYPE_CHECKING:
    import pandas as pd

COLUMNS = (
    "message_id", "enrolment_id", "campaign", "step", "customer_id", "channel", "state", "reason", "anchor_at", "due_at", "send_at",
    "handed_over_at", "finalized_at", "planned_at", "provider", "pool",
)  # fmt: skip
WENT = ("sent", "unknown")
LOST = ("cancelled", "skipped", "expired", "failed")


@dataclass
class Story:
    """One simulation. summary: plain JSON; rows: one per message (COLUMNS); put_off: day, message_id, state, reason."""

    summary: dict[str, Any]
    rows: pd.DataFrame
    put_off: pd.DataFrame
    seconds: dict[str, float] = field(default_factory=dict)

    def write(self, folder: Path, name: str = "simulation") -> dict[str, Path]:
        """Write summary (JSON), page (HTML with plots) and rows (Parquet, CSV) into `folder`; their paths."""
        import duckdb

        from postlude.simulate.page import page

        folder.mkdir(parents=True, exist_ok=True)
        paths = {kind: folder / f"{name}.{kind}" for kind in ("json", "html", "parquet", "csv")}
        paths["json"].write_text(json.dumps(self.summary, ensure_ascii=False, indent=1, default=str), encoding="utf-8")
        paths["html"].write_text(page(self.summary), encoding="utf-8")
        rows = self.rows  # noqa: F841 - DuckDB finds it by its name
        with duckdb.connect() as duck:
            relation = duck.sql("select * from rows")
            relation.write_parquet(str(paths["parquet"]))
            relation.write_csv(str(paths["csv"]))
        return paths


def story(engine: Engine, wanted: Any, log: Log, seconds: float, original: URL | None = None) -> Story:
    """Read what the copy holds at the end. original: where a replay is compared with what really happened."""
    import pandas as pd

    from postlude.simulate import past

    with db.transaction(engine) as conn:
        found = db.run(conn, "86_messages_of_window", first=wanted.first, until=wanted.until)
        rows = pd.DataFrame(found.all(), columns=list(found.keys()))
        refused = [dict(row) for row in db.run(conn, "86_refusals_of_window", first=wanted.first).mappings()]
        given = [dict(row) for row in db.run(conn, "86_coupons_of_window", first=wanted.first).mappings()]
        revision = calendar.head(conn)
    rows["provider"] = [provider_of(domain or "") for domain in rows.pop("domain")]
    rows["message_id"] = rows["message_id"].astype(str)
    rows["enrolment_id"] = rows["enrolment_id"].astype(str)
    for column in ("anchor_at", "due_at", "send_at", "handed_over_at", "finalized_at", "planned_at"):
        rows[column] = pd.to_datetime(rows[column], utc=True)
    rows = rows[list(COLUMNS)].sort_values(["campaign", "step", "message_id"], ignore_index=True)
    put_off = pd.DataFrame(
        [(day, str(message), state, reason) for day, message, state, reason in log.put_off],
        columns=["day", "message_id", "state", "reason"],
    )
    summary: dict[str, Any] = {
        "from": wanted.first.isoformat(), "until": wanted.until.isoformat(), "future": wanted.future, "seed": wanted.seed,
        "calendar": "draft" if wanted.calendar else "in force", "calendar_revision": revision, "assumptions": log.assumptions,
        "seconds": round(seconds, 1), "passes": log.passes,
        "totals": {str(state): int(n) for state, n in rows["state"].value_counts().sort_index().items()},
        "days": _days(rows, put_off, wanted.first, wanted.until),
        "reasons": _reasons(rows, put_off, wanted.first, wanted.until),
        "refusals": [row | {"day": str(row["day"])} for row in refused],
        "coupons": _coupons(given, log.stock),
        "providers": _providers(rows, wanted.first, wanted.until),
        "gates": log.gates,
    }  # fmt: skip
    if original is not None:
        summary["replay"] = past.compared(original, rows, wanted.first, wanted.until)
    return Story(summary, rows, put_off, log.seconds)


def _within(rows: pd.DataFrame, column: str, first: datetime, until: datetime) -> pd.DataFrame:
    chosen = rows[(rows[column] >= first) & (rows[column] < until)]
    return chosen.assign(day=chosen[column].dt.strftime("%Y-%m-%d"))


def _counted(frame: pd.DataFrame, keys: Sequence[str], name: str) -> dict[tuple[Any, ...], int]:
    if not len(frame):
        return {}
    return {key: int(n) for key, n in frame.groupby(list(keys)).size().items()}


def _days(rows: pd.DataFrame, put_off: pd.DataFrame, first: datetime, until: datetime) -> list[dict[str, Any]]:
    """Per day, campaign and step: sent, planned, put off (people, once a day) and lost."""
    keys = ["day", "campaign", "step"]
    counts = {
        "sent": _counted(_within(rows[rows["state"].isin(WENT)], "handed_over_at", first, until), keys, "sent"),
        "planned": _counted(_within(rows, "planned_at", first, until), keys, "planned"),
        "put_off": _counted(_named(rows, put_off).drop_duplicates(["day", "message_id"]), keys, "put_off"),
        "lost": _counted(_within(rows[rows["state"].isin(LOST)], "finalized_at", first, until), keys, "lost"),
    }
    every = sorted({key for found in counts.values() for key in found})
    return [
        dict(zip(keys, key, strict=True)) | {name: found.get(key, 0) for name, found in counts.items()} for key in every
    ]


def _named(rows: pd.DataFrame, put_off: pd.DataFrame) -> pd.DataFrame:
    """What was put off, with campaign and step; what ended that way is among the lost."""
    waits = put_off[put_off["state"].isin(["scheduled", "held"])]
    return waits.assign(day=waits["day"].astype(str)).merge(rows[["message_id", "campaign", "step"]], on="message_id")


def _reasons(rows: pd.DataFrame, put_off: pd.DataFrame, first: datetime, until: datetime) -> list[dict[str, Any]]:
    import pandas as pd

    keys = ["day", "campaign", "step", "state", "reason"]
    lost = _within(rows[rows["state"].isin(LOST)], "finalized_at", first, until)
    waits = _named(rows, put_off).drop_duplicates(["day", "message_id", "reason"])
    both = pd.concat([lost[keys], waits[keys]], ignore_index=True)
    return [dict(zip(keys, key, strict=True)) | {"messages": n} for key, n in sorted(_counted(both, keys, "n").items())]


def _coupons(given: list[dict[str, Any]], stock: list[dict[str, Any]]) -> list[dict[str, Any]]:
    bound = {(str(row["day"]), row["pool"]): row["given"] for row in given}
    return [row | {"given": bound.get((row["day"], row["pool"]), 0)} for row in stock]


def _providers(rows: pd.DataFrame, first: datetime, until: datetime) -> list[dict[str, Any]]:
    """Messages per day, channel and provider: its load."""
    sent = _within(rows[rows["state"].isin(WENT)], "handed_over_at", first, until)
    keys = ["day", "channel", "provider"]
    return [dict(zip(keys, key, strict=True)) | {"messages": n} for key, n in sorted(_counted(sent, keys, "n").items())]
