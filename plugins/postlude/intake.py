# ruff: noqa: S608 - names of tables and columns come from our own definitions or are checked; values are bound
"""Orders in: what a source delivers becomes checked rows (extract), and the good ones become the shop's facts (load).

`extract` reads new deliveries into raw tables of text, runs the selects of the mapping file over them, reads each value
safely and marks every row with what is wrong with it (`problems`). What was refused goes into `quarantine` at once, so
it can be looked at even when a gate then stops the load. `load` merges the good rows in one transaction, or nothing at
all when too large a share was refused. Running either again changes nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime

import psycopg
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError

from postlude import db
from postlude.canonical import BOOKKEEPING, COLUMNS, DEFAULTS, ENTITIES, UNIQUE, checks, reading
from postlude.errors import Fault, GateClosed, InputError
from postlude.settings import settings
from postlude.sources import ROW_COLUMNS, Delivery, Progress, RawTable, Section, Source, Taken, mapping, quoted, reader
from postlude.yamlfile import did_you_mean


def staging(source: Source, entity: str) -> str:
    """Name of the table (schema postlude) in which the rows of one delivery wait for the load."""
    return f"staging_{source.id}_{entity}"


def claim(conn: Connection, source: Source, run_id: str) -> None:
    """Say in the database which run made the staging that stands there: two runs may overlap, in a backfill for one."""
    names = {"staged": f"postlude.{staging(source, 'files')}", "run_id": run_id}
    conn.execute(
        text("select set_config('postlude.staged', :staged, true), set_config('postlude.run_id', :run_id, true)"), names
    )
    _run(
        conn,
        "do $$ begin execute format('comment on table %s is %L', current_setting('postlude.staged')::regclass, "
        "current_setting('postlude.run_id')); end $$",
    )


def holder(conn: Connection, source: Source) -> str | None:
    """The run whose rows are staged, None when nothing is. The source stays locked until the transaction ends."""
    _lock(conn, source)
    named = {"name": f"postlude.{staging(source, 'files')}"}
    return conn.scalar(text("select obj_description(to_regclass(:name), 'pg_class')"), named)


# ---------------------------------------------------------------- extract


def extract(
    conn: Connection, source: Source, now: datetime, run_id: str, progress: Progress | None = None,
    *, only: Sequence[Delivery] | None = None, limit: int | None = None,
) -> dict[str, int]:  # fmt: skip
    """Read what is new into staging tables and mark what is wrong with each row.

    only: read these deliveries, new or not, instead of what lies ready. limit: at most so many rows of each delivery.
    Returns files, rows_read (raw rows), rows_staged, rows_quarantined and the staged rows of each entity. Staging is
    made anew each time. Raises InputError for a file or a mapping that a person must mend, Unavailable when a shop does
    not answer; then nothing has changed.
    """
    file, sections = mapping(source)
    _check_sections(file, sections)
    with conn.begin_nested():
        _lock(conn, source)
        _register(conn, source)
        conn.execute(
            text("select set_config('postlude.zone', :zone, true), set_config('postlude.source', :id, true)"),
            {"zone": source.time_zone, "id": source.id},
        )
        read = _read(conn, source, now, progress, only, limit)
        for entity in ENTITIES:
            _make_staging(conn, source, entity)
        _make_files(conn, source, read)
        for number, section in enumerate(sections if read else [], 1):
            _stage(conn, source, file, section, now)
            if progress:
                progress(section.entity, number, len(sections))
        for name in source.entities:
            conn.execute(text(f"drop table if exists pg_temp.{quoted(name)}"))
        _cross_check(conn, source)
        counts = {entity: _count(conn, source, entity) for entity in ENTITIES}
        refused = sum(_quarantine(conn, source, entity, now, run_id) for entity in ENTITIES if counts[entity])
    return {
        "files": len(read),
        "rows_read": sum(taken.rows for _, taken in read),
        "rows_staged": sum(counts.values()),
        "rows_quarantined": refused,
        **counts,
    }


def _lock(conn: Connection, source: Source) -> None:
    """One intake of a source at a time; a second one waits, then finds nothing left to do."""
    _run(conn, "set local work_mem = '64MB'")  # whole deliveries are sorted here
    # a small delivery finds its rows in a long history by the index, not by reading the history
    _run(conn, "set local random_page_cost = 1.1")
    conn.execute(
        text("select pg_advisory_xact_lock(hashtextextended(:key, 0))"), {"key": f"postlude.intake.{source.id}"}
    )


def _register(conn: Connection, source: Source) -> None:
    kept = {
        "monetary": source.monetary,
        "fresh_within_seconds": int(source.fresh_within.total_seconds()),
        "mapping": source.mapping,
        "scheduled": source.scheduled,
        "quiet_days": sorted(source.quiet_days),
        "review_scale": source.review_scale,
    }
    db.run(
        conn, "11_register_source", source=source.id, shop=source.shop, kind=source.kind, currency=source.currency,
        zone=source.time_zone, locale=source.locale, settings=db.dumps(kept),
    )  # fmt: skip


def _read(
    conn: Connection, source: Source, now: datetime, progress: Progress | None, only: Sequence[Delivery] | None,
    limit: int | None,
) -> list[tuple[Delivery, Taken]]:  # fmt: skip
    """Copy the new deliveries of every raw entity into its raw table; those that brought anything, with what they brought."""
    kind = reader(source.kind)
    new = _new_deliveries(conn, source) if only is None else list(only)
    places = text("select entity, cursor from source_cursors where source_id = :id")
    begin = {entity: cursor for entity, cursor in conn.execute(places, {"id": source.id})}
    read: list[tuple[Delivery, Taken]] = []
    for delivery in new:
        asked = replace(delivery, since=begin.get(delivery.entity), until=now)
        taken = kind.read(source, asked, RawTable(conn, delivery.entity, len(read) + 1, limit), progress)
        if taken.rows or delivery.checksum:  # a pull that found nothing is no delivery
            read.append((replace(asked, checksum=delivery.checksum or taken.checksum), taken))
    for name, spec in source.entities.items():
        if new:  # a raw entity without a new file is an empty table, so that the mapping finds it
            RawTable(conn, name, 0).prepare(spec.columns, 1)
            _run(conn, f"analyze pg_temp.{quoted(name)}")
    return read


def _new_deliveries(conn: Connection, source: Source) -> list[Delivery]:
    """What lies ready and was not loaded yet; pulls always are new."""
    kind = reader(source.kind)
    known = {
        (entity, checksum)
        for entity, checksum in conn.execute(
            text("select entity, checksum from loads where source_id = :source"), {"source": source.id}
        )
    }
    there = [delivery for name in source.entities for delivery in kind.deliveries(source, name)]
    once = list({(delivery.entity, delivery.checksum): delivery for delivery in reversed(there)}.values())[::-1]
    new = [delivery for delivery in once if (delivery.entity, delivery.checksum) not in known]
    return once if new and source.snapshot else new


def _make_staging(conn: Connection, source: Source, entity: str) -> None:
    table = staging(source, entity)
    listed = ", ".join(f"{column.name} {column.sql_type}" for column in COLUMNS[entity])
    _run(conn, f"drop table if exists postlude.{table}")
    _run(
        conn,
        f"create unlogged table postlude.{table} ({listed}, _file int, _line bigint, "
        "_row bigint generated always as identity, problems text[] not null, raw jsonb)",
    )
    _run(conn, f"comment on table postlude.{table} is 'Rows of one delivery between extract and load.'")


def _make_files(conn: Connection, source: Source, read: list[tuple[Delivery, Taken]]) -> None:
    table = f"postlude.{staging(source, 'files')}"
    _run(conn, f"drop table if exists {table}")
    _run(
        conn,
        f"create unlogged table {table} (number int, entity text, name text, checksum text, rows_read bigint, cursor text, "
        "columns text[] not null)",
    )
    _run(conn, f"comment on table {table} is 'Files of one delivery between extract and load.'")
    for number, (delivery, taken) in enumerate(read, 1):
        conn.execute(
            text(f"""insert into {table} select :number, :entity, :name, :checksum, :rows, :cursor, array(
                select cast(attname as text) from pg_attribute
                where attrelid = to_regclass(:raw) and attnum > 0 and not attisdropped and attname <> all(:own))"""),
            {
                "raw": f"pg_temp.{quoted(delivery.entity)}",
                "own": list(ROW_COLUMNS),
                "number": number,
                "entity": delivery.entity,
                "name": delivery.name,
                "checksum": delivery.checksum,
                "rows": taken.rows,
                "cursor": taken.cursor,
            },
        )


# ---------------------------------------------------------------- mapping


def _check_sections(file: str, sections: list[Section]) -> None:
    faults = [
        Fault(file, s.line - 1, s.entity, f"there is no such entity{did_you_mean(s.entity, ENTITIES)}")
        for s in sections
        if s.entity not in ENTITIES
    ]
    if faults:
        raise InputError(faults)


def _stage(conn: Connection, source: Source, file: str, section: Section, now: datetime) -> None:
    """Run one select of the mapping file, read its values as what they should be, keep rows with their problems."""
    view = "_mapped"
    head = f"create temporary view {view} as select * from (\n"
    whole = f"{head}{section.sql}) as mapped"
    with _blaming(file, section, whole, len(head)):
        _run(conn, whole)
    attributes = conn.execute(
        text(
            "select attname, format_type(atttypid, null) from pg_attribute "
            "where attrelid = to_regclass('pg_temp._mapped') and attnum > 0"
        )
    )
    mapped: dict[str, str] = {name: kind for name, kind in attributes}
    known = {column.name: column for column in COLUMNS[section.entity]}
    faults = [
        Fault(file, _line_of(section, name), name, f"{section.entity} has no such column{did_you_mean(name, known)}")
        for name in mapped
        if name not in known and name not in ROW_COLUMNS
    ]
    faults += [
        Fault(file, section.line - 1, section.entity, f'does not give "{column.name}", which every row needs; add it')
        for column in known.values()
        if column.required and column.name not in mapped
    ]
    values: dict[str, str] = {}
    for column in known.values():
        if column.name not in mapped:
            values[column.name] = DEFAULTS.get((section.entity, column.name), f"cast(null as {column.sql_type})")
            continue
        read = reading(f"m.{column.name}", mapped[column.name], column.type)
        if read is None:
            what = f"is {mapped[column.name]}, but must be {column.sql_type}; cast it, or give the text as delivered"
            faults.append(Fault(file, _line_of(section, column.name), column.name, what))
            continue
        default = DEFAULTS.get((section.entity, column.name))
        values[column.name] = f"coalesce({read}, {default})" if default and not column.filled else read
    for name in ROW_COLUMNS:
        if mapped.get(name, "integer") not in ("integer", "bigint"):
            faults.append(Fault(file, _line_of(section, name), name, "must be the raw table's own column"))
        values[name] = f"m.{name}" if name in mapped else "cast(null as int)"
    if faults:
        raise InputError(faults)
    problems = [check for column in known.values() for check in checks(section.entity, column, mapped.get(column.name))]
    typed = ", ".join(f"{value} as {name}" for name, value in values.items())
    table = staging(source, section.entity)
    names = ", ".join(values)
    statement = f"""
        insert into postlude.{table} ({names}, problems, raw)
        select {", ".join(f"t.{name}" for name in values)}, p.problems,
            case when cardinality(p.problems) > 0 then to_jsonb(t.delivered) end
        from (select {typed}, m as delivered from pg_temp.{view} as m offset 0) as t
        cross join lateral (select array_remove(array[{", ".join(problems)}], null) as problems offset 0) as p"""
    parameters = {
        "now": now, "zone": source.time_zone, "currency": source.currency, "statuses": sorted(source.statuses or ()) or None,
    }  # fmt: skip
    with _blaming(file, section):
        conn.execute(text(statement), parameters)
    conn.execute(text(f"drop view pg_temp.{view}"))
    _run(conn, f"analyze postlude.{table}")


@contextmanager
def _blaming(file: str, section: Section, statement: str = "", head: int = 0) -> Iterator[None]:
    """Mistakes in what a mapping file says become InputErrors with file and line.

    `head`: where the section's text begins in `statement`. Without it only bad values are the mapping's fault.
    """
    try:
        yield
    except (psycopg.Error, DBAPIError) as error:
        cause = error.orig if isinstance(error, DBAPIError) else error
        theirs = (psycopg.ProgrammingError, psycopg.NotSupportedError, psycopg.DataError) if head else psycopg.DataError
        if not isinstance(cause, psycopg.Error) or not isinstance(cause, theirs):
            raise
        position = int(cause.diag.statement_position or 0) - 1
        within = statement[head:position].count("\n") if head and position > head else 0
        line = section.line + min(within, section.sql.rstrip().count("\n"))
        said = (cause.diag.message_primary or "cannot be run").splitlines()[0]
        if isinstance(cause, psycopg.DataError):  # the rest of such a message is a delivered value
            said = f"{said.split(': ')[0]}; read text with to_number, to_instant, to_day or to_flag"
        raise InputError([Fault(file, line, section.entity, said)]) from None


def _line_of(section: Section, name: str) -> int:
    for number, line in enumerate(section.sql.splitlines()):
        if re.search(rf"\b{re.escape(name)}\b", line):
            return section.line + number
    return section.line - 1


# ---------------------------------------------------------------- checks across rows


def _cross_check(conn: Connection, source: Source) -> None:
    """Mark rows that contradict each other, and rows that point to nothing."""
    for entity, key in UNIQUE.items():
        _mark_contradictions(conn, source, entity, key)
    _mark_reused(conn, source)
    zones = f"update postlude.{staging(source, 'customers')} set time_zone = null"
    _run(conn, f"{zones} where time_zone is not null and time_zone not in (select zone from postlude.time_zones)")
    for entity in ("orders", "consents", "tickets", "external_events"):
        _mark_orphans(conn, source, entity, "customers", "customer_identities", "source_customer_id")
    for entity in ("order_lines", "shipments", "returns", "reviews"):
        _mark_orphans(conn, source, entity, "orders", "orders", "source_order_id")


def _mark_contradictions(conn: Connection, source: Source, entity: str, key: tuple[str, ...]) -> None:
    table = f"postlude.{staging(source, entity)}"
    named = ", ".join(key)
    if any(column.name == "updated_at" for column in COLUMNS[entity]):
        key = (*key, "updated_at")  # versions of a row do not contradict each other
    whole = ", ".join((*key, "_file"))
    same = " and ".join(f"s.{column} is not distinct from d.{column}" for column in (*key[1:], "_file"))
    content = ", ".join(column.name for column in COLUMNS[entity])
    filled = " and ".join(f"{column} is not null" for column in named.split(", "))
    _run(
        conn,
        f"""
        with twice as (
            select {whole} from {table} where {filled} and cardinality(problems) = 0
            group by {whole} having count(*) > 1
        ), differing as (
            select {", ".join(f"s.{column}" for column in (*key, "_file"))}
            from {table} as s inner join twice as d on s.{key[0]} = d.{key[0]} and {same}
            where cardinality(s.problems) = 0
            group by {", ".join(f"s.{column}" for column in (*key, "_file"))}
            having count(distinct row({", ".join(f"s.{name}" for name in content.split(", "))})::text) > 1
        )
        update {table} as s set problems = problems || array['{named}: two different rows in one delivery']
        from differing as d where s.{key[0]} = d.{key[0]} and {same} and cardinality(s.problems) = 0""",
    )


def _mark_reused(conn: Connection, source: Source) -> None:
    """A known number on an order of somebody else and of another day is a new order under an old number."""
    _run(
        conn,
        f"""
        update postlude.{staging(source, "orders")} as s
        set problems = problems || array['source_order_id: names another order already']
        from postlude.orders as o
        where o.source_id = '{source.id}' and o.source_order_id = s.source_order_id and cardinality(s.problems) = 0
            and abs(extract(epoch from s.placed_at - o.placed_at)) > 86400
            and o.customer_id is not null and s.source_customer_id is not null
            and not exists (
                select from postlude.customer_identities as i
                where i.source_id = o.source_id and i.source_customer_id = s.source_customer_id
                    and i.customer_id = o.customer_id
            )""",
    )


def _mark_orphans(conn: Connection, source: Source, entity: str, parents: str, stored: str, column: str) -> None:
    """Rows whose `column` names none of the good `parents` delivered with them, and none of the `stored` ones.

    Only what the delivery itself does not answer is looked up, key by key: the cost does not grow with the history.
    """
    table = f"postlude.{staging(source, entity)}"
    _run(
        conn,
        f"""
        with absent as materialized (
            select distinct s.{column} from {table} as s
            where s.{column} is not null and not exists (
                select from postlude.{staging(source, parents)} as p
                where p.{column} = s.{column} and cardinality(p.problems) = 0
            )
        )
        update {table} as s set problems = problems || array['{column}: no such {parents.removesuffix("s")}']
        from absent as a
        where s.{column} = a.{column} and (
            select 1 from postlude.{stored} as k
            where k.source_id = '{source.id}' and k.{column} = a.{column} limit 1
        ) is null""",
    )


def _quarantine(conn: Connection, source: Source, entity: str, now: datetime, run_id: str) -> int:
    """Record refused rows as delivered, once each; how many rows of the delivery were refused."""
    table = f"postlude.{staging(source, entity)}"
    without = "'{" + ",".join(BOOKKEEPING) + "}'"
    conn.execute(
        text(f"""
        insert into postlude.quarantine as q (source_id, entity, row_hash, reasons, raw, first_seen, last_seen, run_id)
        select distinct on (row_hash) :source, :entity, row_hash, problems,
            content || jsonb_strip_nulls(jsonb_build_object('_file', name, '_line', _line)), :now, :now, :run
        from (
            select encode(sha256(convert_to(cast(c.content as text), 'UTF8')), 'hex') as row_hash,
                s.problems, c.content, f.name, s._line, s._row
            from {table} as s
            cross join lateral (
                select jsonb_strip_nulls(coalesce(s.raw, to_jsonb(s)) - cast({without} as text[])) as content offset 0
            ) as c
            left join postlude.{staging(source, "files")} as f on f.number = s._file
            where cardinality(s.problems) > 0
        ) as refused
        order by row_hash, _row
        on conflict (source_id, entity, row_hash) do update
        set reasons = excluded.reasons, last_seen = excluded.last_seen, run_id = excluded.run_id"""),
        {"source": source.id, "entity": entity, "now": now, "run": run_id},
    )
    return _count(conn, source, entity, "cardinality(problems) > 0")


def _count(conn: Connection, source: Source, entity: str, condition: str = "true") -> int:
    return int(conn.scalar(text(f"select count(*) from postlude.{staging(source, entity)} where {condition}")) or 0)


# ---------------------------------------------------------------- load


def load(conn: Connection, source: Source, now: datetime, run_id: str) -> dict[str, int]:
    """Merge the staged rows without problems into the shop's facts, all or nothing, and drop the staging.

    Returns files, rows_read, rows_loaded (good rows), rows_quarantined, released, and for each entity the rows that are
    new or changed. Nothing staged: all zero. Raises GateClosed, before anything is merged, when of any entity more than
    `min_free_rows` rows and more than the share `quarantine_share` were refused; staging then stays for a look.
    """
    counts = dict.fromkeys(("files", "rows_read", "rows_loaded", "rows_quarantined", "released", *ENTITIES), 0)
    with conn.begin_nested():
        _lock(conn, source)
        if conn.scalar(text("select to_regclass(:name)"), {"name": f"postlude.{staging(source, 'files')}"}) is None:
            return counts
        counts |= _totals(conn, source)
        for entity in (*ENTITIES, "files"):
            table = f"postlude.{staging(source, entity)}"
            _run(conn, f"create temporary view staging_{entity} as select * from {table}")
        if counts["files"]:
            counts |= _merge(conn, source, now, run_id)
        for entity in (*ENTITIES, "files"):
            _run(conn, f"drop view pg_temp.staging_{entity}")
            _run(conn, f"drop table postlude.{staging(source, entity)}")
    return counts


def _totals(conn: Connection, source: Source) -> dict[str, int]:
    """What is staged, unless too much of it was refused."""
    limit = settings().quarantine_share
    rows = refused = 0
    broken = []
    for entity in ENTITIES:
        delivered, bad = _count(conn, source, entity), _count(conn, source, entity, "cardinality(problems) > 0")
        rows, refused = rows + delivered, refused + bad
        if bad > settings().min_free_rows and bad > limit * delivered:
            share = f"{bad:,} of {delivered:,} {entity} ({bad / delivered:.1%}) were refused"
            broken.append(f"{share}: {_reasons(conn, source, entity)}")
    if broken:
        what = "; ".join(broken)
        raise GateClosed(
            f"{source.id}: nothing was loaded, for {what}. The limit is {limit:.1%}; the rows are in quarantine. "
            "Have the delivery or the mapping mended, then run ingest again."
        )
    files, read = conn.execute(
        text(f"select count(*), coalesce(sum(rows_read), 0) from postlude.{staging(source, 'files')}")
    ).one()
    return {"files": files, "rows_read": int(read), "rows_loaded": rows - refused, "rows_quarantined": refused}


def _reasons(conn: Connection, source: Source, entity: str) -> str:
    found = conn.execute(
        text(
            f"select reason, count(*) from postlude.{staging(source, entity)}, unnest(problems) as reason "
            "group by reason order by count(*) desc, reason limit 3"
        )
    )
    return ", ".join(f"{reason} {count:,}" for reason, count in found)


def _merge(conn: Connection, source: Source, now: datetime, run_id: str, replay: bool = False) -> dict[str, int]:
    by, at = {"source": source.id}, {"source": source.id, "now": now}
    counts = {"customers": db.run(conn, "11_update_customers", **by).rowcount}
    counts["customers"] += db.run(conn, "12_add_customers", **at).rowcount
    counts["consents"] = db.run(conn, "12_merge_consents", **at).rowcount
    counts["products"] = db.run(conn, "12_merge_products", **at).scalar_one()
    db.run(conn, "13_choose_orders", **by)
    _run(conn, "analyze pg_temp.chosen_orders")
    db.run(conn, "14_key_lines", **by)
    _run(conn, "analyze pg_temp.keyed_lines")
    counts["orders"] = db.run(conn, "13_merge_orders", monetary=source.monetary, **at).rowcount
    counts["order_lines"] = db.run(conn, "14_drop_replaced_lines").rowcount
    counts["order_lines"] += db.run(conn, "14_merge_lines").rowcount
    for entity in ("shipments", "returns", "reviews", "tickets"):
        counts[entity] = db.run(conn, f"15_merge_{entity}", **by).rowcount
    counts["external_events"] = db.run(conn, "15_merge_external_events", **at).rowcount
    db.run(conn, "16_count_orders", monetary=source.monetary)
    counts["released"] = db.run(conn, "17_release_quarantine", **at).rowcount
    if not replay:  # a few rows of old deliveries say nothing about how far the source is complete
        db.run(conn, "18_record_loads", run=run_id, **at)
        db.run(conn, "18_record_columns", run=run_id, **at)
        db.run(conn, "18_move_cursors", run=run_id, **at)
        db.run(conn, "18_move_watermark", **at)
    db.run(conn, "18_count_feed_days", **at)
    db.run(conn, "18_mark_feed", **by)
    db.drop_temporary(conn, "table chosen_orders", "table keyed_lines")
    _analyze(conn, counts)
    return counts


def _analyze(conn: Connection, counts: dict[str, int]) -> None:
    """New statistics for tables of which a tenth or more is new: the next stage plans its joins by them."""
    changed = {name: counts[name] for name in ("customers", "consents", "orders", "order_lines", "shipments")}
    changed["customer_identities"] = counts["customers"]
    found = conn.execute(
        text(
            "select relname, reltuples from pg_class "
            "where relnamespace = cast('postlude' as regnamespace) and relname = any(:names)"
        ),
        {"names": list(changed)},
    )
    rows: dict[str, float] = {row.relname: row.reltuples for row in found}
    due = [f"postlude.{name}" for name, new in changed.items() if new > 1_000 and new > rows[name] / 10]
    if due:
        _run(conn, f"analyze {', '.join(due)}")


def _run(conn: Connection, statement: str) -> None:
    """Execute SQL text as it stands, without bound parameters."""
    raw = conn.connection.driver_connection
    assert raw is not None
    raw.execute(statement)
