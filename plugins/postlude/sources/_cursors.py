"""The place where a pull ended, as text that keeps its type: `datetime:2026-12-01T09:30:00+00:00`, `int:4711`."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

_READ: dict[str, Callable[[str], Any]] = {
    "datetime": datetime.fromisoformat,
    "date": date.fromisoformat,
    "int": int,
    "decimal": Decimal,
    "text": str,
}
SLACK = timedelta(minutes=10)  # so far ahead may another clock be


def write(value: Any) -> str:
    """The text of a cursor value. Raises TypeError for a type that has no order a database and Python agree on."""
    if isinstance(value, datetime):
        return f"datetime:{value.isoformat()}"
    kinds = {date: "date", int: "int", Decimal: "decimal", str: "text"}
    return f"{kinds[type(value)]}:{value}" if type(value) in kinds else _no_cursor(value)


def read(text: str) -> Any:
    kind, _, value = text.partition(":")
    return _READ[kind](value)


def before(value: Any, look_back: timedelta | int) -> Any:
    """`value` moved back. Text moves when it is a time in ISO 8601; other text, and a span of the wrong type, stays."""
    if isinstance(value, int | Decimal):
        return value - look_back if isinstance(look_back, int) else value
    if isinstance(look_back, int):
        return value
    if isinstance(value, datetime | date):
        return value - look_back
    instant = instant_of(value)
    if instant is None:
        return value
    return (instant - look_back).isoformat(sep=value[10:11] or "T")[: None if len(value) > 10 else 10]


def instant_of(value: Any) -> datetime | None:
    """The time that a cursor value tells, if it tells one."""
    try:
        if isinstance(value, str):
            return datetime.fromisoformat(value)
        if isinstance(value, datetime):
            return value
        return datetime(value.year, value.month, value.day) if isinstance(value, date) else None  # noqa: DTZ001 - a day has no zone
    except ValueError:
        return None


def is_ahead(value: Any, until: datetime | None) -> bool:
    """Does the value tell a time that has not come? One such row must not hide everything that comes after it.

    A time without offset may be in any zone, so a day more is allowed.
    """
    instant = instant_of(value)
    if instant is None or until is None:
        return False
    if instant.tzinfo is None:
        return instant.replace(tzinfo=UTC) > until + timedelta(days=1)
    return instant > until + SLACK


def _no_cursor(value: Any) -> str:
    raise TypeError(type(value).__name__)
