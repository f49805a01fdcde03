"""A calendar as flat keys, so that two people's changes can be laid over each other, compared and told in words.

`{"window": {...}, "pauses/win_back/2026-12-20": {...}, "pressure/caps/in 1 week": {...}, ...}`: whatever stands in a list has a
key of its own, made of what it is about. A change is `{"key", "before", "after"}`; None: it is not there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from postlude.calendar.model import Calendar, Cap

Flat = dict[str, Any]
Change = dict[str, Any]


def scope_of(cap: Mapping[str, Any]) -> str:
    """What a cap is about: "in 1 week", "per day, email"; the number is not part of it."""
    words = str(Cap.model_validate(dict(cap)).rule()["words"])
    return words.removeprefix(f"at most {cap['most']} ")


# list of the calendar -> the key of one of its entries
_LISTS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    "blackout_days": lambda e: str(e["date"]),
    "pauses": lambda e: f"{e['campaign']}/{e['from']}",
    "occasions": lambda e: f"{e['id']}/{e['date']}",
    "delays": lambda e: f"{e['campaign']}/{e['step']}",
    "specials": lambda e: str(e["id"]),
}


def flat(calendar: Calendar) -> Flat:
    content = calendar.content()
    found: Flat = {}
    for name, value in content.items():
        if name in _LISTS:
            found |= {f"{name}/{_LISTS[name](entry)}": entry for entry in value}
        elif name == "windows":
            found |= {f"windows/{campaign}": window for campaign, window in value.items()}
        elif name == "pressure":
            if value is not None:
                found |= {f"pressure/caps/{scope_of(cap)}": cap for cap in value["caps"]}
                found |= {"pressure/gap": value["gap"], "pressure/when_full": value["when_full"]}
        elif value is not None:
            found[name] = value
    return found


def whole(keys: Flat) -> Calendar:
    """The calendar of these keys. Raises pydantic's ValidationError."""
    content: dict[str, Any] = {name: [] for name in _LISTS} | {"windows": {}}
    for key, value in sorted(keys.items()):
        name, _, rest = key.partition("/")
        if name in _LISTS:
            content[name].append(value)
        elif name == "windows":
            content["windows"][rest] = value
        elif name == "pressure":
            pressure = content.setdefault("pressure", {"caps": []})
            if rest.startswith("caps/"):
                pressure["caps"].append(value)
            else:
                pressure[rest] = value
        else:
            content[name] = value
    return Calendar.model_validate(content)


def differences(before: Flat, after: Flat) -> list[Change]:
    return [
        {"key": key, "before": before.get(key), "after": after.get(key)}
        for key in sorted(before.keys() | after.keys())
        if before.get(key) != after.get(key)
    ]


def applied(keys: Flat, changes: Iterable[Change]) -> Flat:
    """These keys with the changes laid over them; what a change names is set or taken away, whatever was there."""
    found = dict(keys)
    for change in changes:
        if change["after"] is None:
            found.pop(change["key"], None)
        else:
            found[change["key"]] = change["after"]
    return found


# ---------------------------------------------------------------- in words


def in_words(change: Change) -> str:
    """One change as a sentence of people: "win_back is paused from 2026-12-20 to 2026-12-27 (stocktaking)"."""
    name, _, rest = change["key"].partition("/")
    before, after = change["before"], change["after"]
    told = _WORDS[name](rest, before, after) if name in _WORDS else f"{change['key']}: {before} → {after}"
    why = (after or {}).get("why") if isinstance(after, dict) else None
    return f"{told} ({why})" if why else told


def _pauses(rest: str, before: Any, after: Any) -> str:
    campaign = rest.partition("/")[0]
    who = "every marketing campaign" if campaign == "all" else campaign
    if after is None:
        return f"{who} is not paused from {before['from']} to {before['until']}"
    if before is None:
        return f"{who} is paused from {after['from']} to {after['until']}"
    return f"the pause of {who} from {after['from']} ends on {after['until']} instead of {before['until']}"


def _window(campaign: str, before: Any, after: Any) -> str:
    def said(window: Any) -> str:
        days = "" if len(window["days"]) == 7 else f" on {', '.join(window['days'])}"
        return f"{str(window['opens'])[:5]}–{str(window['closes'])[:5]}{days}"

    whose = f"the window of {campaign}" if campaign else "the send window"
    if after is None:
        return f"{whose} ({said(before)}) is taken away; the common one holds"
    return f"{whose} is {said(after)}" + (f" instead of {said(before)}" if before else "")


def _pressure(rest: str, before: Any, after: Any) -> str:
    if not rest.startswith("caps/"):
        return f"pressure: {rest} is {after or 'none'} instead of {before or 'none'}"
    scope = rest.removeprefix("caps/")
    if after is None:
        return f"no longer at most {before['most']} {scope}"
    return f"at most {after['most']} {scope}" + (f" instead of {before['most']}" if before else "")


def _due(delay: Any) -> str:
    if delay["on_day"] is None:
        return f"{delay['after']} after"
    return f"day {delay['on_day']}" + (f" at {str(delay['at'])[:5]}" if delay["at"] else "")


def _delays(rest: str, before: Any, after: Any) -> str:
    if after is None:
        return f"{rest} is due as its file says again, not on {_due(before)}"
    flying = {
        "finish": "planned mails keep their day",
        "migrate": "planned mails move along",
        "stop": "planned mails are cancelled",
    }
    return f"{rest} moves to {_due(after)}; {flying[after['in_flight']]}"


def _specials(rest: str, before: Any, after: Any) -> str:
    if after is None:
        return f"{before['kind']} “{before['name']}” on {before['date']} is cancelled"
    what = f"{after['kind']} “{after['name']}” goes to “{after['segment']}” on {after['date']}"
    return what + (f" instead of {before['date']}" if before and before["date"] != after["date"] else "")


def _there(what: str) -> Callable[[str, Any, Any], str]:
    def said(rest: str, before: Any, after: Any) -> str:
        return f"{rest.replace('/', ' ')} is {'no longer ' if after is None else ''}{what}"

    return said


_WORDS: dict[str, Callable[[str, Any, Any], str]] = {
    "pauses": _pauses,
    "window": _window,
    "windows": _window,
    "pressure": _pressure,
    "delays": _delays,
    "specials": _specials,
    "blackout_days": _there("a day without marketing"),
    "occasions": _there("an occasion"),
}
