"""Durations and wall clocks. Pure twins of what the SQL does, and the words people write for durations."""

from __future__ import annotations

import re
from datetime import UTC, datetime, time, timedelta
from typing import Annotated, Any
from zoneinfo import ZoneInfo

from pydantic import BeforeValidator, PlainSerializer

_UNITS = {
    "minute": timedelta(minutes=1),
    "hour": timedelta(hours=1),
    "day": timedelta(days=1),
    "week": timedelta(weeks=1),
}


def parse_duration(value: Any) -> timedelta:
    """A duration as people write it: "36 hours", "5 days", "2 weeks". Months and years are refused: they have no fixed length.

    Raises ValueError with the mending hint.
    """
    if isinstance(value, timedelta):
        return value
    hit = re.fullmatch(r"\s*(\d+)\s*([a-z]+?)s?\s*", str(value).lower())
    if not hit or hit[2] not in _UNITS:
        raise ValueError(f'"{value}" is not a duration; write e.g. "5 days" or "12 hours"')
    return int(hit[1]) * _UNITS[hit[2]]


def parse_wall_time(value: Any) -> time:
    """A time of day as "09:30". Raises ValueError with the mending hint."""
    if isinstance(value, time):
        return value
    hit = re.fullmatch(r"([01]\d|2[0-3]):([0-5]\d)(:00)?", str(value))  # with seconds: as JSON has it
    if not hit:
        raise ValueError(f'"{value}" is not a time of day; write e.g. "09:30"')
    return time(int(hit[1]), int(hit[2]))


def in_words(duration: timedelta) -> str:
    """ "5 days", "12 hours": the largest unit that leaves no remainder; parse_duration reads it back."""
    for name, unit in reversed(_UNITS.items()):
        if duration >= unit and not duration % unit:
            count = duration // unit
            return f"{count} {name}{'s' if count != 1 else ''}"
    return f"{duration // _UNITS['minute']} minutes"


Duration = Annotated[timedelta, BeforeValidator(parse_duration), PlainSerializer(in_words, when_used="json")]
WallTime = Annotated[
    time, BeforeValidator(parse_wall_time), PlainSerializer(lambda at: f"{at:%H:%M}", when_used="json")
]


def local_instant(wall: datetime, zone: str) -> datetime:
    """The instant (UTC) at which the clocks of `zone` first show the naive time `wall`.

    A time in a gap moves forward by the gap; one that exists twice is taken once, the first (PEP 495, fold=0).
    """
    return wall.replace(tzinfo=ZoneInfo(zone), fold=0).astimezone(UTC)
