"""Edits as people make them, in a form or by drag: plain dicts with `do`. Each becomes changes of the calendar's keys."""

from __future__ import annotations

import datetime as dt
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, TypeVar

from pydantic import Field, field_validator

from postlude import yamlfile
from postlude.calendar.keys import Flat, flat, scope_of
from postlude.calendar.model import Blackout, Calendar, Cap, Delay, Pause, Special, Window, _day
from postlude.errors import Fault, InputError
from postlude.yamlfile import Strict, did_you_mean

Edit = Mapping[str, Any]
M = TypeVar("M", bound=Strict)


class _Resume(Strict):
    campaign: str
    on: dt.date = Field(description="first day on which it goes again")

    _dates = field_validator("on", mode="before")(_day)


class _Day(Strict):
    date: dt.date

    _dates = field_validator("date", mode="before")(_day)


class _Remove(Strict):
    campaign: str | None = None
    remove: Literal[True] = True


class _Name(Strict):
    id: str


def edited(calendar: Calendar, edits: Sequence[Edit], why: str, now: dt.datetime) -> Flat:
    """The calendar's keys after these edits, one after the other. Raises InputError with every fault of every edit."""
    keys, faults = flat(calendar), list[Fault]()
    for number, edit in enumerate(edits, 1):
        what = str(edit.get("do", ""))
        given = {key: value for key, value in edit.items() if key != "do" and value not in (None, "")}
        try:
            if what not in _DO:
                raise InputError(f'there is no edit "{what}"{did_you_mean(what, _DO)}; there are {", ".join(_DO)}')
            _DO[what](keys, given, _Context(calendar, f"edit {number} ({what})", why, now))
        except InputError as error:
            faults += [Fault(f"edit {number}", 0, fault.key or what, fault.message) for fault in error.faults]
    if faults:
        raise InputError(faults)
    return keys


class _Context:
    def __init__(self, calendar: Calendar, place: str, why: str, now: dt.datetime) -> None:
        self.calendar, self.place, self.why, self.now = calendar, place, why, now

    def read(self, given: Edit, model: type[M]) -> M:
        # JSON is YAML: the same reader, and the same words for every mistake
        return yamlfile.parse(json.dumps(dict(given), default=str), self.place, model)

    def entry(self, given: Edit, model: type[M]) -> dict[str, Any]:
        return self.read(given, model).model_dump(mode="json", by_alias=True)


def _pause(keys: Flat, given: Edit, of: _Context) -> None:
    entry = of.entry({"why": of.why, **given}, Pause)
    keys[f"pauses/{entry['campaign']}/{entry['from']}"] = entry


def _resume(keys: Flat, given: Edit, of: _Context) -> None:
    wanted = of.read({key: value for key, value in given.items() if key != "why"}, _Resume)
    day = str(wanted.on)
    held = [
        key for key, entry in keys.items()
        if key.startswith(f"pauses/{wanted.campaign}/") and entry["from"] <= day <= entry["until"]
    ]  # fmt: skip
    if not held:
        raise InputError(f"{wanted.campaign} is not paused on {day}; there is nothing to take back")
    for key in held:
        entry = keys.pop(key)
        if entry["from"] < day:
            keys[key] = entry | {"until": str(wanted.on - dt.timedelta(days=1))}


def _move(keys: Flat, given: Edit, of: _Context) -> None:
    # to the microsecond: whatever was planned before it is in flight
    entry = of.entry({"why": of.why, **given, "since": of.now.isoformat()}, Delay)
    keys[f"delays/{entry['campaign']}/{entry['step']}"] = entry


def _add_blackout(keys: Flat, given: Edit, of: _Context) -> None:
    entry = of.entry({"why": of.why, **given}, Blackout)
    if f"blackout_days/{entry['date']}" in keys:
        raise InputError(f"{entry['date']} is a blackout day already")
    keys[f"blackout_days/{entry['date']}"] = entry


def _remove_blackout(keys: Flat, given: Edit, of: _Context) -> None:
    day = of.read({"date": given.get("date", "")}, _Day).date
    if keys.pop(f"blackout_days/{day}", None) is None:
        raise InputError(f"{day} is no blackout day; there is nothing to take away")


def _window(keys: Flat, given: Edit, of: _Context) -> None:
    campaign = given.get("campaign")
    if given.get("remove"):
        of.read({key: value for key, value in given.items() if key != "why"}, _Remove)
        if keys.pop(f"windows/{campaign}", None) is None:
            raise InputError(f"{campaign or 'the calendar'} has no window of its own; there is nothing to take away")
        return
    wanted = {key: value for key, value in given.items() if key not in ("campaign", "why")}
    keys[f"windows/{campaign}" if campaign else "window"] = of.entry(wanted, Window)


def _cap(keys: Flat, given: Edit, of: _Context) -> None:
    wanted = {key: value for key, value in given.items() if key not in ("remove", "why")}
    entry = of.entry({"most": 1, **wanted} if given.get("remove") else wanted, Cap)
    key = f"pressure/caps/{scope_of(entry)}"
    if not any(name.startswith("pressure/") for name in keys):  # the settings' own cap goes on beside it
        pressure = of.calendar.pressure_in_force
        known = flat(of.calendar.model_copy(update={"pressure": pressure}))
        keys.update({name: value for name, value in known.items() if name.startswith("pressure/")})
    if given.get("remove"):
        if keys.pop(key, None) is None:
            raise InputError(f'there is no cap "{scope_of(entry)}"; there is nothing to take away')
        return
    keys[key] = entry


def _special(kind: str) -> Callable[[Flat, Edit, _Context], None]:
    def put(keys: Flat, given: Edit, of: _Context) -> None:
        entry = of.entry({"why": of.why, **given, "kind": kind}, Special)
        if dt.date.fromisoformat(entry["until"] or entry["date"]) < of.now.date():
            raise InputError(f"{entry['date']} is over; choose a day to come")
        keys[f"specials/{entry['id']}"] = entry

    return put


def _cancel(keys: Flat, given: Edit, of: _Context) -> None:
    name = of.read({"id": given.get("id", "")}, _Name).id
    if keys.pop(f"specials/{name}", None) is None:
        raise InputError(f'there is no offer or card "{name}"; there is nothing to cancel')


_DO: dict[str, Callable[[Flat, Edit, _Context], None]] = {
    "pause": _pause,
    "resume": _resume,
    "move": _move,
    "add_blackout": _add_blackout,
    "remove_blackout": _remove_blackout,
    "window": _window,
    "cap": _cap,
    "offer": _special("offer"),
    "card": _special("card"),
    "cancel": _cancel,
}
