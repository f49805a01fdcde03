"""Records of a shop's API into a raw table: `id`, `updated_at` and `payload`, the record's JSON as the shop gave it.

The mapping file reads the payload. Of several versions of a record in one pull the newest stays.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

from pydantic import Field

from postlude.errors import Fault, InputError
from postlude.sources import Delivery, Progress, RawTable, Source, Taken, _cursors
from postlude.timing import Duration
from postlude.yamlfile import Strict, shown

COLUMNS = ("id", "updated_at", "payload")
_HALVES = re.compile("[\ud800-\udfff]")
TELL = 500  # records between two reports of progress


class Pulled(Strict):
    """What every raw entity of a pulled shop has."""

    start: date | None = Field(None, description="the first pull begins here; without it everything there is is read")
    look_back: Duration = Field(
        timedelta(minutes=15),
        description="so much before the newest loaded change is read again: late commits are not lost",
    )
    page_size: int = Field(100, ge=1, le=250, description="records asked for at a time")

    @property
    def columns(self) -> tuple[str, ...]:
        return COLUMNS


@dataclass(frozen=True)
class Record:
    """One record as the shop gave it. `updated_at`: its version, None where the shop tells none."""

    id: str
    updated_at: datetime | None
    payload: dict[str, Any]


def deliveries(source: Source, name: str) -> list[Delivery]:
    """One pull; nobody is asked yet."""
    return [Delivery(name, f"pull of {name}")]


def sample(source: Source, name: str, path: Path) -> Delivery:
    """Records saved in a file: a page as the API gives it, a list, one record, or one record per line."""
    return Delivery(name, path.name, "", path, path.stat().st_size)


def since(entity: Pulled, delivery: Delivery) -> datetime | None:
    """From when on changes are to be asked for; None: from the beginning."""
    if delivery.since:
        return _cursors.before(_cursors.read(delivery.since), entity.look_back)
    if entity.start is None:
        return None
    return datetime(entity.start.year, entity.start.month, entity.start.day, tzinfo=UTC)


def take(delivery: Delivery, into: RawTable, records: Iterable[Record], progress: Progress | None) -> Taken:
    """Append the records to the raw table, whole or not at all."""
    into.prepare(COLUMNS, 1)
    digest = hashlib.sha256()
    newest = _cursors.read(delivery.since) if delivery.since else None
    count = 0
    with into.copying(COLUMNS) as copy:
        for record in records:
            if into.limit is not None and count >= into.limit:
                break
            count += 1
            version = record.updated_at.isoformat() if record.updated_at else None
            payload = _payload(record.payload)
            copy.write_row((record.id, version, payload))
            digest.update(f"{record.id}\n{payload}\n".encode())
            if record.updated_at and not _cursors.is_ahead(record.updated_at, delivery.until):
                newest = record.updated_at if newest is None else max(newest, record.updated_at)
            if progress and count % TELL == 0:
                progress(delivery.name, count, 0)
    return Taken(into.keep_newest() if count else 0, digest.hexdigest(), newest and _cursors.write(newest))


def text(value: Any) -> str:
    """An id as text. Raises TypeError for a record without one."""
    if isinstance(value, bool) or not isinstance(value, int | str) or value == "":
        raise TypeError("id")
    return str(value)


def instant(value: Any) -> datetime | None:
    """A time as APIs write it: ISO 8601 (without offset UTC), or seconds since 1970. Raises ValueError, TypeError."""
    if value in (None, ""):
        return None
    if isinstance(value, int):
        return datetime.fromtimestamp(value, UTC)
    found = datetime.fromisoformat(value)
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def saved(path: Path, key: str) -> list[Any]:
    """The records in a sample file. Raises InputError with the line."""
    file = shown(path)
    try:
        words = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError):
        raise InputError([Fault(file, 0, "", "cannot be read as UTF-8 text; check the file")]) from None
    try:
        found = json.loads(words)
    except ValueError as error:
        try:
            found = [json.loads(line) for line in words.splitlines() if line.strip()]
        except ValueError:
            line = error.lineno if isinstance(error, json.JSONDecodeError) else 1
            raise InputError([Fault(file, line, "", "is not JSON; save the answer of the API as it is")]) from None
    if isinstance(found, dict):  # {"orders": [...]}, {"data": [...]}, {"order": {...}}, or a bare record
        wrapped = next(
            (found[name] for name in (key, "data", key.removesuffix("s")) if isinstance(found.get(name), list | dict)),
            None,
        )
        found = found if wrapped is None or "id" in found else wrapped
    return found if isinstance(found, list) else [found]


def records(items: Iterable[Any], source: Source, name: str, version: str) -> Iterator[Record]:
    """Records with their `id` and the time in the field `version`. Raises InputError for what is none."""
    for item in items:
        try:
            yield Record(text(item["id"]), instant(item.get(version)), item)
        except (TypeError, KeyError, AttributeError, ValueError):
            what = f'the shop gave a record without an id, or with an unreadable "{version}"'
            raise InputError([source.fault("entities", name, message=what)]) from None


def _payload(item: dict[str, Any]) -> str:
    words = json.dumps(item, ensure_ascii=False)
    if "\\u0000" in words or (not words.isascii() and _HALVES.search(words)):
        words = json.dumps(_storable(item), ensure_ascii=False)
    return words


def _storable(value: Any) -> Any:
    """The value without what no PostgreSQL text can hold: zero bytes and halves of characters."""
    if isinstance(value, str):
        return value.replace("\0", "").encode("utf-8", "replace").decode()
    if isinstance(value, list):
        return [_storable(each) for each in value]
    if isinstance(value, dict):
        return {_storable(key): _storable(each) for key, each in value.items()}
    return value
