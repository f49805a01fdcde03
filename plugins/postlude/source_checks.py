# ruff: noqa: S608 - names of tables come from checked ids and our own definitions
"""What a source would bring: the real extract and load over its own files, its shop or a sample, then rolled back."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, text
from sqlalchemy.exc import OperationalError

from postlude import intake
from postlude.canonical import BOOKKEEPING, COLUMNS, ENTITIES
from postlude.errors import GateClosed, InputError, Unavailable
from postlude.sources import Delivery, Progress, Source, _connections, load_sources, reader
from postlude.yamlfile import shown

ORPHANS = (": no such customer", ": no such order")


def preview(
    on: Engine, source: Source, now: datetime, samples: dict[str, Path] | None = None, limit: int | None = 1000,
    rows: int = 5, progress: Progress | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Canonical rows that would be loaded and those that would be refused, with reasons. Nothing is written.

    samples: a file for each raw entity, read instead of what the source gives; an entity without one is empty.
    limit: at most so many rows of each raw entity, of files those of the newest one; None: everything that is new.
    rows: so many rows of each kind are given back.

    Returns deliveries, entities (delivered, would_load, new_or_changed, refused, unresolved, rows, refusals), `stops` (why
    the load would stop, or None). `unresolved`: refused only because their customer or order is refused, or is neither in this
    sample nor in the database. Raises InputError as the intake does, Unavailable while an intake of this source runs.
    """
    deliveries = _deliveries(source, samples, limit)
    with on.connect() as conn:  # never committed
        try:
            conn.execute(text("set local lock_timeout = '5s'"))
            intake.extract(conn, source, now, "check", progress, only=deliveries, limit=limit)
            found = {entity: _entity(conn, source, entity, rows) for entity in ENTITIES}
            read = conn.execute(text(f"select entity, name, rows_read from postlude.{intake.staging(source, 'files')}"))
            told = [dict(row._mapping) for row in read]
            stops = None
            try:
                counts = intake.load(conn, source, now, "check")
            except GateClosed as error:
                counts, stops = {}, str(error)
        except OperationalError as error:
            if getattr(error.orig, "sqlstate", "") == "55P03":
                raise Unavailable(
                    f"{source.id}: an intake of this source is running; try again when it is done"
                ) from None
            raise
        finally:
            conn.rollback()
    entities = {
        name: {"new_or_changed": counts.get(name, 0), **entity} for name, entity in found.items() if entity["delivered"]
    }
    return {
        "source": source.id, "kind": source.kind, "whole": samples is None and limit is None, "deliveries": told,
        "entities": entities, "stops": stops, "written": "nothing",
    }  # fmt: skip


def _deliveries(source: Source, samples: dict[str, Path] | None, limit: int | None) -> Sequence[Delivery] | None:
    """What to read: the samples; of a limited look the newest delivery of each entity; None: whatever is new."""
    kind = reader(source.kind)
    if samples is not None:
        return [kind.sample(source, name, path) for name, path in samples.items()]
    if limit is None:
        return None
    return [delivery for name in source.entities for delivery in kind.deliveries(source, name)[-1:]]


def _entity(conn: Connection, source: Source, entity: str, rows: int) -> dict[str, Any]:
    table = f"postlude.{intake.staging(source, entity)}"
    delivered, refused, unresolved = conn.execute(
        text(f"""
            select count(*), count(*) filter (where cardinality(problems) > 0), count(*) filter (
                where cardinality(problems) > 0 and not exists (
                    select from unnest(problems) as p where p not like '%' || :one and p not like '%' || :other
                ))
            from {table}"""),
        {"one": ORPHANS[0], "other": ORPHANS[1]},
    ).one()
    good = conn.execute(
        text(f"select to_jsonb(t) from {table} as t where cardinality(problems) = 0 order by _row limit :rows"),
        {"rows": rows},
    )
    bad = conn.execute(
        text(f"""
            select t.problems, coalesce(t.raw, to_jsonb(t)), f.name, t._line
            from {table} as t left join postlude.{intake.staging(source, "files")} as f on f.number = t._file
            where cardinality(t.problems) > 0 order by t._row limit :rows"""),
        {"rows": rows},
    )
    return {
        "delivered": delivered,
        "would_load": delivered - refused,
        "refused": refused - unresolved,
        "unresolved": unresolved,
        "rows": [_plain(entity, row) for (row,) in good],
        "refusals": [
            {"reasons": list(problems), "delivery": name, "line": line, "row": _plain(entity, raw)}
            for problems, raw, name, line in bad
        ],
    }


def _plain(entity: str, row: dict[str, Any]) -> dict[str, Any]:
    """What the row holds, in the sequence in which canonical columns are described."""
    known = [column.name for column in COLUMNS[entity]]
    names = [*(name for name in known if name in row), *(name for name in row if name not in (*known, *BOOKKEEPING))]
    return {name: row[name] for name in names if row[name] is not None}


def samples_of(source: Source, given: Sequence[str]) -> dict[str, Path]:
    """The sample file of each raw entity. Raises InputError where it is not clear.

    Each of `given` is `ENTITY=FILE`, a folder with files named after entities, a file named after one, a JSON file whose
    keys are entities or their resources, or any file where the source has one entity only.
    """
    found: dict[str, Path] = {}
    for word in given:
        name, sign, rest = word.partition("=")
        path = Path(rest if sign and name in source.entities else word)
        if not path.exists():
            raise InputError(f"--sample: there is no {shown(path)}; check the name")
        if sign and name in source.entities:
            found[name] = path
        elif path.is_dir():
            found |= {
                entity: file
                for entity in source.entities
                for file in sorted(path.iterdir())
                if _called(source, entity, file)
            }
        else:
            fitting = [entity for entity in source.entities if _called(source, entity, path)] or _keys(source, path)
            if not fitting and len(source.entities) > 1:
                raise InputError(
                    f"--sample: which of {', '.join(source.entities)} is in {shown(path)}? Write e.g. "
                    f"{next(iter(source.entities))}={path.name}"
                )
            found |= dict.fromkeys(fitting or source.entities, path)
    if not found:
        raise InputError(f"--sample: no file is called after one of {', '.join(source.entities)}; write ENTITY=FILE")
    return {name: found[name] for name in source.entities if name in found}


def _names(source: Source, entity: str) -> set[str]:
    return {entity, getattr(source.entities[entity], "resource", entity)}


def _called(source: Source, entity: str, path: Path) -> bool:
    return path.is_file() and path.name.split(".")[0] in _names(source, entity)


def _keys(source: Source, path: Path) -> list[str]:
    if path.suffix != ".json":
        return []
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError):
        return []
    there = set(content) if isinstance(content, dict) and "id" not in content else set()
    there |= {f"{key}s" for key in there}  # {"order": {...}}
    return [entity for entity in source.entities if _names(source, entity) & there]


def overview(conn: Connection, folder: Path | None = None) -> list[dict[str, Any]]:
    """Every source file with what is known of it: connection, last load, how complete, where pulls go on."""
    known = {
        row.source_id: row for row in conn.execute(text("select source_id, loaded_at, complete_until from sources"))
    }
    places: dict[str, dict[str, str]] = {}
    for source_id, entity, cursor in conn.execute(
        text("select source_id, entity, cursor from source_cursors order by 1, 2")
    ):
        places.setdefault(source_id, {})[entity] = cursor.partition(":")[2]
    return [
        {
            "source": source.id,
            "kind": source.kind,
            "shop": source.shop,
            "file": source.file,
            "scheduled": source.scheduled,
            "connection": source.connection,
            "connection_set": _connections.has(source.connection) if source.connection else None,
            "entities": list(source.entities),
            "loaded_at": known[source.id].loaded_at if source.id in known else None,
            "complete_until": known[source.id].complete_until if source.id in known else None,
            "next_pull_from": places.get(source.id, {}),
        }
        for source in load_sources(folder)
    ]
