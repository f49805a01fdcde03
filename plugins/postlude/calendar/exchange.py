"""The calendar as other programs have it: YAML as in the file, CSV for spreadsheets, ICS for calendar apps. All come back the same."""

from __future__ import annotations

import csv
import datetime as dt
import io
import json
import re
from collections.abc import Callable, Iterable
from typing import Any

import icalendar
import yaml

from postlude import csvsafe, yamlfile
from postlude.calendar.keys import Flat, flat, whole
from postlude.calendar.model import Calendar
from postlude.errors import Fault, InputError

_SECONDS = re.compile(r"(\d\d:\d\d):00")
_GUARDED = (*csvsafe.FORMULA, "'")  # gets an apostrophe in front, and loses it on the way back
_NESTED = ("days", "campaigns", "countries", "except", "coupon")  # JSON in a cell
_NAME = re.compile(r"[^\x20-\x7e]|[/@]")


# ---------------------------------------------------------------- YAML


def to_yaml(calendar: Calendar) -> str:
    """As include/calendar.yml is written; what is not set is left out."""
    content = _bare(calendar.content())
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=120, default_flow_style=None)


def _bare(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _bare(inner) for key, inner in value.items() if inner not in (None, [], {}, "")}
    if isinstance(value, list):
        return [_bare(inner) for inner in value]
    hit = _SECONDS.fullmatch(value) if isinstance(value, str) else None
    return hit[1] if hit else value


def from_yaml(text: str, name: str = "calendar") -> Calendar:
    """Raises InputError with every fault as file:line: key: what."""
    return yamlfile.parse(text, name, Calendar)


# ---------------------------------------------------------------- CSV


def to_csv(calendar: Calendar) -> str:
    """One row per entry; a column for each of its fields. No cell begins as a formula does: such a one gets a ' in front."""
    rows = []
    for key, value in flat(calendar).items():
        name, _, rest = key.partition("/")
        row = {
            "what": name if name not in ("windows", "pressure") else key.rpartition("/")[0] if rest.count("/") else key
        }
        row |= value if isinstance(value, dict) else {"value": value}
        if name == "pressure" and rest.startswith("caps/"):
            row["what"] = "pressure/caps"
        rows.append({field: _cell(inner) for field, inner in row.items() if inner not in (None, [], {}, "")})
    fields = list(dict.fromkeys(["what", *(field for row in rows for field in row)]))
    out = io.StringIO()
    writer = csv.DictWriter(out, fields, restval="", lineterminator="\r\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()


def _cell(value: Any) -> str:
    text = str(_bare(value)) if not isinstance(value, list | dict) else json.dumps(_bare(value), ensure_ascii=False)
    return f"'{text}" if text.lstrip(" ").startswith(_GUARDED) else text


def from_csv(text: str, name: str = "calendar.csv") -> Calendar:
    """Raises InputError with file:line for rows that cannot be read."""
    reader = csv.DictReader(io.StringIO(text.lstrip("\ufeff"), newline=""))
    if "what" not in (reader.fieldnames or []):
        raise InputError([Fault(name, 1, "what", 'the first line must name the columns, "what" among them')])
    keys: Flat = {}
    faults: list[Fault] = []
    for row in reader:
        line = reader.line_num
        found = {field: _value(field, cell) for field, cell in row.items() if field and cell not in (None, "")}
        what = str(found.pop("what", ""))
        if None in row or not what:
            faults.append(Fault(name, line, "what", "the row has too many cells, or does not say what it is"))
            continue
        where = what.partition("/")[0]
        value = found.get("value", found) if set(found) <= {"value"} else found
        if where in ("windows", "window", "holidays", "spread") or what in ("pressure/gap", "pressure/when_full"):
            key = what
        else:
            key = f"{what}/{line}"  # the model makes its own key of it
        if key in keys:
            faults.append(Fault(name, line, "what", f'"{what}" stands there twice'))
        keys[key] = value
    return _built(keys, name, faults)


def _value(field: str, cell: str) -> Any:
    text = cell[1:] if cell.startswith("'") and cell[1:].lstrip(" ").startswith(_GUARDED) else cell
    if field in _NESTED and text[:1] in "[{":
        try:
            return json.loads(text)
        except ValueError:
            return text
    return text


def _built(keys: Flat, name: str, faults: Iterable[Fault]) -> Calendar:
    found = list(faults)
    if not found:
        try:
            return whole(keys)
        except ValueError as error:  # pydantic's own
            problems = error.errors() if hasattr(error, "errors") else []
            found = [
                Fault(name, 0, "/".join(map(str, p["loc"])), str(p.get("ctx", {}).get("error") or p["msg"]))
                for p in problems
            ]
    raise InputError(found or f"{name} is no calendar")


# ---------------------------------------------------------------- ICS


def to_ics(calendar: Calendar, now: dt.datetime, planned: Iterable[tuple[dt.date, str, int]] = ()) -> bytes:
    """Pauses, blackout days, occasions and one-off sends as days of a calendar app; planned: (day, campaign, mails) beside them.

    Windows, caps and delays are no days: they stay what they are when an ICS file is read.
    """
    book = icalendar.Calendar()
    book.add("prodid", "-//Postlude//Campaign calendar//EN")
    book.add("version", "2.0")
    book.add("x-wr-calname", "Campaign calendar")
    book.add("refresh-interval", dt.timedelta(hours=1), parameters={"VALUE": "DURATION"})
    for key, entry in flat(calendar).items():
        name = key.partition("/")[0]
        if name not in _EVENTS:
            continue
        first, last, words = _EVENTS[name](entry)
        event = _event(f"{_NAME.sub('-', key)}@postlude", first, last, words, now)
        event.add("categories", [name])
        event.add("x-postlude", json.dumps(_bare(entry), ensure_ascii=False))
        book.add_component(event)
    for day, campaign, mails in planned:
        event = _event(f"planned-{campaign}-{day}@postlude", day, day, f"{campaign}: {mails:,} mails planned", now)
        event.add("transp", "TRANSPARENT")
        book.add_component(event)
    return bytes(book.to_ical())


def _event(uid: str, first: dt.date, last: dt.date, words: str, now: dt.datetime) -> icalendar.Event:
    event = icalendar.Event()
    event.add("uid", uid)
    event.add("dtstamp", now)
    event.add("dtstart", first)
    event.add("dtend", last + dt.timedelta(days=1))
    event.add("summary", words)
    return event


def _day(value: Any) -> dt.date:
    return dt.date.fromisoformat(str(value))


_EVENTS: dict[str, Callable[[dict[str, Any]], tuple[dt.date, dt.date, str]]] = {
    "pauses": lambda e: (_day(e["from"]), _day(e["until"]), f"{e['campaign']} paused: {e['why']}"),
    "blackout_days": lambda e: (_day(e["date"]), _day(e["date"]), f"No marketing: {e['why']}"),
    "occasions": lambda e: (_day(e["date"]), _day(e["date"]), f"{e['id']}: {e['why']}"),
    "specials": lambda e: (
        _day(e["date"]),
        _day(e.get("until") or e["date"]),
        f"{e['name']} ({e['kind']}, {e['segment']})",
    ),
}


def from_ics(raw: bytes, present: Calendar, name: str = "calendar.ics") -> Calendar:
    """The present calendar with the days of an ICS file: events moved in a calendar app, taken out, or blackout days added.

    A new event is a blackout day, unless its category says otherwise; what was planned (no category of ours) is passed over.
    Raises InputError for what cannot be read.
    """
    try:
        book = icalendar.Calendar.from_ical(raw)
    except ValueError as error:
        raise InputError([Fault(name, 0, "", f"cannot be read as iCalendar: {str(error)[:120]}")]) from None
    keys = {key: value for key, value in flat(present).items() if key.partition("/")[0] not in _EVENTS}
    faults: list[Fault] = []
    for number, event in enumerate(book.walk("VEVENT")):
        uid = str(event.get("uid", f"event {number}"))
        if uid.startswith("planned-") and uid.endswith("@postlude"):
            continue
        try:
            kind, entry = _entry(event)
            keys[f"{kind}/{number}"] = entry
        except (ValueError, KeyError, TypeError) as error:
            faults.append(Fault(name, 0, uid, f"is no day of this calendar: {str(error)[:120]}"))
    return _built(keys, name, faults)


def _entry(event: Any) -> tuple[str, dict[str, Any]]:
    start = event.decoded("dtstart")
    first = start.date() if isinstance(start, dt.datetime) else start
    end = event.decoded("dtend") if "dtend" in event else first + dt.timedelta(days=1)
    last = (end.date() if isinstance(end, dt.datetime) else end) - dt.timedelta(days=1)
    last = max(first, last)
    summary = str(event.get("summary", "")).strip()
    categories = event.get("categories")
    kind = next((str(c) for c in getattr(categories, "cats", []) if str(c) in _EVENTS), "blackout_days")
    entry = (
        json.loads(str(event["x-postlude"]))
        if "x-postlude" in event
        else {"why": summary.removeprefix("No marketing:").strip()}
    )
    if not isinstance(entry, dict):
        raise ValueError("X-POSTLUDE holds no entry")
    if kind == "pauses":
        return kind, entry | {"from": str(first), "until": str(last)}
    if kind == "blackout_days" and last != first:
        raise ValueError(f"a blackout day is one day, and this lasts from {first} to {last}")
    if kind == "specials" and entry.get("until"):
        entry["until"] = str(last)
    return kind, entry | {"date": str(first)}
