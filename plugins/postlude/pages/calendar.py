"""The campaign calendar: what was sent, is planned and is forecast per day; pauses, blackouts, windows, one-off sends; changing them.

A change is drafted, its effect on people is worked out by the time machine, and only then it is saved as a revision
(docs/calendar.md). Of two editors the second is told what the first has changed; a form that is sent twice is refused.
"""

import datetime as dt
import json
from collections.abc import Iterator
from functools import lru_cache
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Query
from fastapi.responses import JSONResponse
from pydantic import BaseModel, Field
from sqlalchemy import Connection

from postlude import calendar, db, rendering, tallies, timing, tokens
from postlude.calendar import Calendar, Conflict
from postlude.errors import InputError
from postlude.pages import jobs, known
from postlude.pages.app import Deps, answer
from postlude.pages.segments import files as segment_files

SPAN = 400  # days that may be asked for at once
AHEAD = 45  # days a look ahead reaches
STATES = {"sent": "sent", "scheduled": "planned", "held": "held", "sending": "planned"}
SHIFT = dt.timedelta(days=1)


class Change(BaseModel):
    """Edits as docs/calendar.md has them, drafted over revision `base`."""

    edits: list[dict[str, Any]] = Field(min_length=1, max_length=20)
    why: str = Field(max_length=500)
    base: int = Field(ge=0)


class Save(Change):
    """A change to be saved. job: the look ahead that was shown; none: saved without one, which the revision says."""

    job: str = Field("", max_length=32)


class Asked(BaseModel):
    """A look ahead that was started."""

    job: str = Field(max_length=32)


class Revert(BaseModel):
    """A revision to take back."""

    revision: int = Field(ge=1, lt=2**63)
    why: str = Field(max_length=500)


class Nothing(BaseModel):
    """No words are needed."""


def routes(deps: Deps) -> APIRouter:
    router = APIRouter()
    editor = Annotated[str, deps.steer()]

    @router.get("/api/calendar")
    def shown(
        name: Annotated[str | None, Depends(deps.steering)],
        first: Annotated[str, Query(max_length=10)],
        last: Annotated[str, Query(max_length=10)],
    ) -> JSONResponse:
        begins, ends = _day(first), _day(last)
        if not dt.timedelta() <= ends - begins <= dt.timedelta(days=SPAN):
            raise InputError(f"choose up to {SPAN} days, the first before the last")
        with db.transaction(deps.engine()) as conn:
            return answer(_shown(conn, deps, begins, ends) | {"may_steer": name is not None})

    @router.get("/api/calendar/history")
    def history(name: Annotated[str | None, Depends(deps.steering)]) -> JSONResponse:
        with db.transaction(deps.engine()) as conn:
            return answer({"revisions": _history(conn), "may_steer": name is not None})

    @router.post("/api/calendar/draft")
    def draft(change: Change, by: editor) -> JSONResponse:
        with db.transaction(deps.engine()) as conn:
            return answer({"words": _draft(conn, deps, change, by).words})

    @router.post("/api/calendar/check")
    def check(change: Change, by: editor) -> JSONResponse:
        with db.transaction(deps.engine()) as conn:
            words = _draft(conn, deps, change, by).words
        asked = ["calendar", "check", "--edits", "{in}", *_ahead(deps)]
        return answer({"words": words, "job": jobs.start(deps.home, deps.engine(), "check", asked, _about(change))})

    @router.post("/api/calendar/forecast")
    def forecast(_: Nothing, by: editor) -> JSONResponse:
        asked = ["simulate", *_ahead(deps), "--folder", "{folder}"]
        return answer(
            {"job": jobs.start(deps.home, deps.engine(), "forecast", asked, {"day": str(deps.clock().date())})}
        )

    @router.post("/api/calendar/checked")
    def checked(asked: Asked, by: editor) -> JSONResponse:
        found = jobs.state(deps.home, asked.job)
        if found["done"] and "days" in found["result"]:  # of a forecast: the calendar shows it from now on
            _keep_forecast(deps, found["result"])
            return answer({"done": True, "words": found["result"]["assumptions"]})
        if found["done"]:
            return answer({"done": True, "words": found["result"]["words"]})
        return answer(found)

    @router.post("/api/calendar/save")
    def save(change: Save, by: editor) -> JSONResponse:
        why, edits = change.why, change.edits
        if change.job:
            seen = jobs.state(deps.home, change.job)
            if not seen["done"] or seen["digest"] != jobs.digest(_about(change)):
                raise HTTPException(409, "the look ahead was about another change; look again before you save")
        else:
            why, edits = f"{why} (saved without a look ahead)", [{"why": change.why, **edit} for edit in edits]
        with db.transaction(deps.engine()) as conn:
            made = calendar.save(
                conn, _draft(conn, deps, change.model_copy(update={"why": why, "edits": edits}), by), deps.clock()
            )
        return answer({"revision": made})

    @router.post("/api/calendar/revert")
    def revert(wanted: Revert, by: editor) -> JSONResponse:
        _printable(wanted.why)
        with db.transaction(deps.engine()) as conn:
            try:
                made = calendar.revert(conn, wanted.revision, by=by, why=wanted.why, now=deps.clock())
            except Conflict as conflict:
                raise _conflict(conflict) from None
            return answer({"revision": made, "revisions": _history(conn), "may_steer": True})

    @router.post("/api/calendar/feed")
    def feed(_: Nothing, by: editor) -> JSONResponse:
        name = "".join(letter if letter.isascii() and letter.isalnum() else "-" for letter in by)[:40] or "somebody"
        return answer({"link": tokens.calendar_link(name, deps.clock().date())})

    return router


def _ahead(deps: Deps) -> list[str]:
    """From the instant the reader sees on, so that the same question has the same answer."""
    return ["--from", deps.clock().isoformat(), "--days", str(AHEAD), "--json", "{out}"]


def _draft(conn: Connection, deps: Deps, change: Change, by: str) -> Any:
    _printable(change.why)
    _printable(" ".join(_texts(change.edits)))
    try:
        return calendar.propose(conn, change.edits, by=by, why=change.why, base=change.base, now=deps.clock())
    except Conflict as conflict:
        raise _conflict(conflict) from None
    except InputError as error:
        if len(change.edits) > 1:
            raise
        # whoever makes one edit knows which
        words = [
            fault.message if fault.key in ("", change.edits[0].get("do")) else f"{fault.key}: {fault.message}"
            for fault in error.faults
        ]
        raise InputError("; ".join(words)) from None


def _conflict(conflict: Conflict) -> HTTPException:
    theirs = "; ".join(conflict.words) or "the same"
    same = (
        " It is the same that you want to change."
        if conflict.overlap
        else " It touches nothing of yours: look at it, and do it again."
    )
    return HTTPException(409, f"Somebody was faster, and changed: {theirs}.{same}")


def _about(change: Change) -> dict[str, Any]:
    return {"edits": change.edits, "base": change.base}


def _history(conn: Connection) -> list[dict[str, Any]]:
    return [
        {
            "revision": one.revision, "at": one.at.isoformat(), "author": one.author, "why": one.why, "kind": one.kind,
            "words": one.words, "reverts": one.reverts, "reverted_by": one.reverted_by,
            "changes": [
                {"key": c["key"], "before": _text(c["before"]), "after": _text(c["after"])} for c in one.changes
            ],
        }
        for one in calendar.history(conn)
    ]  # fmt: skip


def _text(value: Any) -> str:
    return "" if value is None else value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _shown(conn: Connection, deps: Deps, first: dt.date, last: dt.date) -> dict[str, Any]:
    now = deps.clock()
    effective = calendar.effective(conn, now)
    campaigns = [*known.campaigns(), *calendar.one_offs(effective)]
    counted = tallies.counted_at(conn)
    return {
        "today": str(now.date()),
        "base": calendar.head(conn),
        "counted_at": counted.isoformat() if counted else None,
        "forecast_at": (_forecast(deps) or {}).get("from"),
        "days": _days(conn, deps, effective, first, last, now),
        "window": _window(effective.window),
        "pauses": [
            {"campaign": p.campaign, "from": str(p.first), "until": str(p.last), "why": p.why} for p in effective.pauses
        ],
        "blackouts": [{"date": str(b.date), "why": b.why} for b in effective.blackout_days],
        "occasions": [{"id": o.id, "date": str(o.date), "why": o.why} for o in effective.occasions],
        "specials": [s.model_dump(mode="json", by_alias=True) for s in effective.specials],
        "caps": [rule["words"] for rule in effective.pressure_in_force.rules],
        "campaigns": [_campaign(one, effective) for one in campaigns],
        "segments": [{"id": one.id, "name": one.name} for one in segment_files()[0]],
        "templates": rendering.names(),
    }


def _campaign(one: Any, effective: Calendar) -> dict[str, Any]:
    delays = {(d.campaign, d.step): d for d in effective.delays}
    steps = []
    for step in calendar.steered(one, effective).steps:
        steps.append(
            {
                "id": step.id, "on_day": step.on_day, "after": timing.in_words(step.after) if step.after is not None else None,
                "at": f"{step.at:%H:%M}" if step.at else None, "moved": (one.id, step.id) in delays,
            }
        )  # fmt: skip
    own = effective.windows.get(one.id)
    return {"id": one.id, "name": one.name, "kind": one.kind, "window": _window(own) if own else None, "steps": steps}


def _window(window: Any) -> dict[str, Any]:
    return {"opens": f"{window.opens:%H:%M}", "closes": f"{window.closes:%H:%M}", "days": list(window.days)}


def _days(
    conn: Connection, deps: Deps, effective: Calendar, first: dt.date, last: dt.date, now: dt.datetime
) -> list[dict[str, Any]]:
    """Per day what was sent, is planned, is held and is forecast, per campaign and step; what is overdue is planned for today."""
    today = now.date()
    found: dict[dt.date, dict[tuple[str, str], dict[str, int]]] = {}

    def add(day: dt.date, campaign: str, step: str, key: str, count: int) -> None:
        if first <= day <= last and count:
            counts = found.setdefault(day, {}).setdefault((campaign, step), {})
            counts[key] = counts.get(key, 0) + count

    begins = min(first, today - dt.timedelta(days=30)) if last >= today else first
    for row in db.run(conn, "69_day_tallies", campaign=None, first=begins, last=last).mappings():
        if key := STATES.get(row["state"]):
            day = max(row["day"], today) if row["open"] else row["day"]
            add(day, row["campaign"], row["step"], key, row["count"])
    for row in (_forecast(deps) or {}).get("days", []):
        day = dt.date.fromisoformat(str(row["day"])[:10])
        if day >= today:
            add(day, row["campaign"], row["step"], "forecast", row["sent"])
    blackouts = {entry.date: entry.why for entry in effective.blackout_days}
    holidays = _holidays(conn, effective, first, last)
    count = (last - first).days + 1
    return [
        {
            "day": str(day),
            "blackout": blackouts.get(day),
            "holidays": holidays.get(day, []),
            "counts": [
                {"campaign": campaign, "step": step, **counts}
                for (campaign, step), counts in sorted(found.get(day, {}).items())
            ],
        }
        for day in (first + dt.timedelta(days=n) for n in range(count))
    ]


def _holidays(
    conn: Connection, effective: Calendar, first: dt.date, last: dt.date
) -> dict[dt.date, list[dict[str, Any]]]:
    """Holidays of the countries the shops sell to; closed: no marketing goes there on that day."""
    obeyed = set()
    if effective.holidays is not None:
        obeyed = {row["country"] for row in effective.holidays.between(first, last)}
    names = [row.country for row in db.run(conn, "77_shop_countries")]
    countries = names or sorted(obeyed)[:12]
    found: dict[dt.date, list[dict[str, Any]]] = {}
    for country in countries:
        for year in range(first.year, last.year + 1):
            for day, name in _named_holidays(country, year):
                if first <= day <= last:
                    found.setdefault(day, []).append({"country": country, "name": name, "closed": country in obeyed})
    return found


@lru_cache(maxsize=1024)
def _named_holidays(country: str, year: int) -> tuple[tuple[dt.date, str], ...]:
    """The holidays of a country with their English names, where there are any; nothing where nobody has written them down."""
    import holidays  # slow to import

    try:
        return tuple(sorted(holidays.country_holidays(country, years=year, language="en_US").items()))
    except NotImplementedError:
        return ()


def _keep_forecast(deps: Deps, summary: dict[str, Any]) -> None:
    kept = {key: summary[key] for key in ("from", "until", "days", "assumptions")}
    target = deps.home / "jobs" / "forecast.json"
    fresh = target.with_suffix(".tmp")
    fresh.write_text(json.dumps(kept), encoding="utf-8")
    fresh.replace(target)


def _forecast(deps: Deps) -> dict[str, Any] | None:
    """The newest look ahead over the calendar in force, as it was then."""
    try:
        found: dict[str, Any] = json.loads((deps.home / "jobs" / "forecast.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return found


def _day(text: str) -> dt.date:
    try:
        return dt.date.fromisoformat(text)
    except ValueError:
        raise InputError(f"{text!r} is not a day; write e.g. 2026-12-24") from None


def _texts(value: Any) -> Iterator[str]:
    """Every text in a piece of JSON."""
    if isinstance(value, str):
        yield value
    for inner in (
        (*value.keys(), *value.values()) if isinstance(value, dict) else value if isinstance(value, list) else ()
    ):
        yield from _texts(inner)


def _printable(text: str) -> None:
    if not text.replace("\n", " ").isprintable():
        raise InputError("this holds characters that cannot be stored; type it anew")
