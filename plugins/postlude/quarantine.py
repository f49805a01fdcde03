# ruff: noqa: S608 - names of tables and columns come from our own definitions; values are bound
"""Rows refused at the door: what is there, and a second try after something was mended.

A replay puts rows through the same reading, checks and merge as a delivery, in one transaction: rows as they were
delivered (orphans whose order has come), rows with a corrected value, or the files they came from once more through a
mended mapping. What is good now is merged and released; what is still bad stays, with its new reasons. A delivery that
waits between extract and load is left as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, text

from postlude import db, intake
from postlude.canonical import COLUMNS, ENTITIES
from postlude.errors import InputError
from postlude.intake import staging
from postlude.sources import Progress, Section, Source, mapping, quoted, reader
from postlude.yamlfile import did_you_mean

_KEYS = {
    "customers": "source_customer_id",
    "consents": "source_customer_id",
    "products": "sku",
    "tickets": "ticket_key",
    "external_events": "event_key",
}


def counts(conn: Connection, source: str = "", entity: str = "", released: bool = False) -> list[dict[str, Any]]:
    """Rows by source, entity and reason, most frequent first; a row with two reasons counts under both."""
    found = db.run(conn, "19_count_quarantine", source=source or None, entity=entity or None, released=released)
    return [dict(row) for row in found.mappings()]


def rows(
    conn: Connection, source: str = "", entity: str = "", reason: str = "", most: int | None = None
) -> list[dict[str, Any]]:
    """Ids, entities and reasons of rows that wait, oldest first; `reason`: a part of one."""
    chosen = {"source": source or None, "entity": entity or None, "reason": reason or None, "most": most}
    return [dict(row) for row in db.run(conn, "19_list_quarantine", **chosen).mappings()]


def row(conn: Connection, quarantine_id: int) -> dict[str, Any]:
    """One row with everything that is known of it. Raises InputError when there is none."""
    found = (
        conn.execute(text("select * from quarantine where quarantine_id = :id"), {"id": quarantine_id})
        .mappings()
        .first()
    )
    if found is None:
        raise InputError(f"there is no row {quarantine_id} in the quarantine; see `postlude quarantine list --rows`")
    return dict(found)


def replay(
    conn: Connection, source: Source, ids: Sequence[int], now: datetime, run_id: str,
    *, corrections: Mapping[str, str] | None = None, progress: Progress | None = None,
) -> dict[str, int]:  # fmt: skip
    """Put rows through the checks and the merge again, with `corrections` (column: value as text) where given.

    Returns replayed, released, still_refused, and for each entity the facts that are new or changed. Rows released
    meanwhile are left out. Raises InputError for rows of another source and for columns the entity does not have.
    """
    with conn.begin_nested(), _staging_of_our_own(conn, source):
        waiting = [dict(found) for found in conn.execute(
            text("""select quarantine_id, source_id, entity, reasons, raw from quarantine
                    where quarantine_id = any(:ids) and released_at is null order by first_seen, quarantine_id for update"""),
            {"ids": list(ids)},
        ).mappings()]  # fmt: skip
        if strangers := [found for found in waiting if found["source_id"] != source.id]:
            raise InputError(
                f"row {strangers[0]['quarantine_id']} came from {strangers[0]['source_id']}, not {source.id}"
            )
        _check_corrections(waiting, corrections or {})
        names = dict.fromkeys(found["raw"].get("_file", "") for found in waiting)
        files = {name: number for number, name in enumerate(names, 1)}
        _name_files(conn, source, files)
        _lay_out(conn, waiting, files, corrections or {})
        entities = [entity for entity in ENTITIES if any(found["entity"] == entity for found in waiting)]
        for number, entity in enumerate(entities, 1):
            section = _section(entity, [found for found in waiting if found["entity"] == entity], corrections or {})
            intake._stage(conn, source, "quarantine", section, now)
            if progress:
                progress(entity, number, len(entities))
        intake._cross_check(conn, source)
        refused = 0
        for entity in entities:
            refused += conn.execute(
                text(f"""
                update quarantine as q
                set reasons = case when cardinality(s.problems) = 0 then q.reasons else s.problems end, run_id = :run,
                    released_at = case when cardinality(s.problems) = 0 then cast(:now as timestamptz) end,
                    replays = q.replays + 1, replayed_at = :now,
                    corrected = coalesce(cast(:corrected as jsonb), q.corrected)
                from postlude.{staging(source, entity)} as s where s._line = q.quarantine_id
                returning q.released_at is null as refused"""),
                {"now": now, "run": run_id, "corrected": db.dumps(corrections) if corrections else None},
            ).scalars().all().count(True)  # fmt: skip
        merged = _merge(conn, source, now, run_id)
    done = {"replayed": len(waiting), "released": len(waiting) - refused, "still_refused": refused}
    return {**done, **{entity: merged[entity] for entity in ENTITIES if merged[entity]}}


def reread(
    conn: Connection, source: Source, ids: Sequence[int], now: datetime, run_id: str, progress: Progress | None = None
) -> dict[str, int]:
    """Read the files these rows came from once more, through the mapping as it is now, and merge only what was refused.

    Returns as `replay`, and files. Raises InputError when the files are no longer there.
    """
    file, sections = mapping(source)
    with conn.begin_nested(), _staging_of_our_own(conn, source):
        chosen = {"ids": list(ids), "source": source.id}
        names = set(
            conn.scalars(text("select raw ->> '_file' from quarantine where quarantine_id = any(:ids)"), chosen)
        )
        whole = source.snapshot or None in names  # rows gathered from several lines do not say where they came from
        kind = reader(source.kind)
        if kind.CONNECTED:
            raise InputError(
                "these rows were pulled and the shop tells them once; replay them with --set, or pull again"
            )
        there = [one for name in source.entities for one in kind.deliveries(source, name)]
        read = intake._read(conn, source, now, progress, [one for one in there if whole or one.name in names], None)
        if not read:
            raise InputError(
                "the files these rows came from are no longer there; replay them with --set, or deliver them again"
            )
        intake._make_files(conn, source, read)
        for number, section in enumerate(sections, 1):
            intake._stage(conn, source, file, section, now)
            _keep_only_refused(conn, source, section.entity, chosen)
            if progress:
                progress(section.entity, number, len(sections))
        for name in source.entities:
            conn.execute(text(f"drop table if exists pg_temp.{quoted(name)}"))
        intake._cross_check(conn, source)
        for entity in ENTITIES:
            intake._quarantine(conn, source, entity, now, run_id)
        merged = _merge(conn, source, now, run_id)
        told = conn.execute(
            text("""update quarantine set replays = replays + 1, replayed_at = :now where quarantine_id = any(:ids)
                    returning released_at is null"""), chosen | {"now": now},
        ).scalars().all()  # fmt: skip
    done = {"files": len(read), "replayed": len(told), "released": told.count(False), "still_refused": told.count(True)}
    return {**done, **{entity: merged[entity] for entity in ENTITIES if merged[entity]}}


def adopt(conn: Connection, source: Source, now: datetime, run_id: str) -> dict[str, int]:
    """Load the rows whose order or customer has come since: a corrected order need not bring its lines again.

    Returns as `replay`; empty when there are none.
    """
    ids = conn.scalars(db.sql("19_orphans_at_home"), {"source": source.id}).all()
    return replay(conn, source, ids, now, run_id) if ids else {}


# ---------------------------------------------------------------- pieces


@contextmanager
def _staging_of_our_own(conn: Connection, source: Source) -> Iterator[None]:
    """Empty staging tables for a replay; those of a delivery that waits for its load are put aside and back."""
    intake._lock(conn, source)
    conn.execute(text("select set_config('postlude.zone', :zone, true)"), {"zone": source.time_zone})
    tables = [staging(source, entity) for entity in (*ENTITIES, "files")]
    aside = [table for table in tables if conn.scalar(text("select to_regclass(:t)"), {"t": f"postlude.{table}"})]
    for table in aside:
        intake._run(conn, f"alter table postlude.{table} rename to aside_{table}")
    for entity in ENTITIES:
        intake._make_staging(conn, source, entity)
    intake._make_files(conn, source, [])
    yield
    for table in tables:
        intake._run(conn, f"drop table postlude.{table}")
    for table in aside:
        intake._run(conn, f"alter table postlude.aside_{table} rename to {table}")


def _merge(conn: Connection, source: Source, now: datetime, run_id: str) -> dict[str, int]:
    for entity in (*ENTITIES, "files"):
        intake._run(conn, f"create temporary view staging_{entity} as select * from postlude.{staging(source, entity)}")
    merged = intake._merge(conn, source, now, run_id, replay=True)
    for entity in (*ENTITIES, "files"):
        intake._run(conn, f"drop view pg_temp.staging_{entity}")
    return merged


def _check_corrections(waiting: Sequence[Mapping[str, Any]], corrections: Mapping[str, str]) -> None:
    if corrections and len({found["entity"] for found in waiting}) > 1:
        raise InputError("a correction is for rows of one entity; name their ids, or give --entity")
    for found in waiting[:1]:
        known = [column.name for column in COLUMNS[found["entity"]]]
        for name in corrections:
            if name not in known:
                raise InputError(
                    f"{found['entity']} has no column {name}{did_you_mean(name, known)}; there are {', '.join(known)}"
                )


def _name_files(conn: Connection, source: Source, files: Mapping[str, int]) -> None:
    for name, number in files.items():
        conn.execute(
            text(
                f"insert into postlude.{staging(source, 'files')} (number, entity, name, checksum, rows_read, columns) "
                "values (:number, :name, nullif(:name, ''), '', 0, '{}')"
            ),
            {"number": number, "name": name},
        )


def _lay_out(
    conn: Connection, waiting: Sequence[Mapping[str, Any]], files: Mapping[str, int], corrections: Mapping[str, str]
) -> None:
    """The rows as they came, with corrections; `_line` is the number of the quarantined row."""
    intake._run(conn, "drop table if exists pg_temp.replayed")
    intake._run(conn, "create temporary table replayed (id bigint, file int, entity text, raw jsonb) on commit drop")
    if waiting:
        conn.execute(
            text("insert into pg_temp.replayed values (:id, :file, :entity, cast(:raw as jsonb))"),
            [
                {
                    "id": found["quarantine_id"],
                    "file": files[found["raw"].get("_file", "")],
                    "entity": found["entity"],
                    "raw": db.dumps({**found["raw"], **corrections}),
                }
                for found in waiting
            ],
        )


def _section(entity: str, waiting: Sequence[Mapping[str, Any]], corrections: Mapping[str, str]) -> Section:
    """A select that gives the rows as a mapping would: every column that was delivered, is needed, or was missing."""
    given = {name for found in waiting for name in found["raw"]} | set(corrections)
    given |= {reason.partition(":")[0] for found in waiting for reason in found["reasons"]}
    columns = [column.name for column in COLUMNS[entity] if column.required or column.name in given]
    values = ", ".join(f"raw ->> '{name}' as {name}" for name in columns)
    select = (
        f"select {values}, file as _file, id as _line from pg_temp.replayed where entity = '{entity}' order by id\n"
    )
    return Section(entity, select, 1)


def _keep_only_refused(conn: Connection, source: Source, entity: str, chosen: Mapping[str, Any]) -> None:
    """Of the files read again, drop every row that was not refused: what was loaded is not touched by a replay."""
    key = _KEYS.get(entity, "source_order_id")
    conn.execute(
        text(f"""
        delete from postlude.{staging(source, entity)} as s
        where not exists (
            select from quarantine as q
            left join postlude.{staging(source, "files")} as f on f.number = s._file
            where q.quarantine_id = any(:ids) and q.source_id = :source and q.entity = '{entity}'
                and (btrim(q.raw ->> '{key}') = s.{key}
                    or (q.raw ->> '_file' = f.name and cast(q.raw ->> '_line' as bigint) = s._line)))"""),
        chosen,
    )
