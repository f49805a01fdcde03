"""A database as a source: any that SQLAlchemy speaks to; a table or query for each raw entity, whole or by a cursor column.

The connection holds the database's URL. Rows stream through with flat memory into COPY; everything arrives as text.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime, timedelta
from datetime import time as wall_time
from decimal import Decimal
from pathlib import Path
from typing import Any, Self
from uuid import UUID

from pydantic import Field, field_validator, model_validator
from sqlalchemy import Connection, Row, create_engine, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError

from postlude.errors import InputError, Unavailable
from postlude.sources import (
    ROW_COLUMNS,
    Delivery,
    Progress,
    RawTable,
    Source,
    Taken,
    _connections,
    _cursors,
    _pull,
    files,
)
from postlude.timing import Duration
from postlude.yamlfile import Strict, did_you_mean

CONNECTED = True
BATCH = 2_000
_DRIVERS = {"postgres": "postgresql+psycopg", "postgresql": "postgresql+psycopg"}
deliveries = _pull.deliveries


class Entity(Strict):
    """A table, or a query. With a cursor only rows at or after the newest loaded one, less the look-back, are read."""

    table: str | None = Field(
        None, pattern=r"^\w+(\.\w+){0,2}$", description="name of the table or view, with its schema if need be"
    )
    query: str | None = Field(None, min_length=1, description="one select, without a semicolon")
    columns: tuple[str, ...] = Field(
        min_length=1, description="columns that must be there; others are read but not needed"
    )
    cursor: str | None = Field(
        None, pattern=r"^\w+$", description="column that grows with every change: a time of change, or a number"
    )
    look_back: Duration | int = Field(
        timedelta(hours=1), description="so much before the newest loaded value is read again; a number for a number"
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if (self.table is None) == (self.query is None):
            raise ValueError('needs either a "table" or a "query"')
        return self

    @field_validator("query")
    @classmethod
    def _one_statement(cls, query: str | None) -> str | None:
        if query and (";" in query or not re.match(r"\s*(--[^\n]*\n\s*)*(select|with)\b", query, re.IGNORECASE)):
            raise ValueError("must be one select, without a semicolon")
        return query

    @field_validator("columns")
    @classmethod
    def _usable_columns(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if taken := [name for name in names if name in ROW_COLUMNS]:
            raise ValueError(f"{', '.join(taken)}: this name is kept for the origin of the row")
        return names


def sample(source: Source, name: str, path: Path) -> Delivery:
    """A file with the columns of the entity: CSV, JSON lines or Parquet."""
    return files.sample(source, name, path)


def read(source: Source, delivery: Delivery, into: RawTable, progress: Progress | None = None) -> Taken:
    """Append the rows. Raises InputError for the connection, the query or a missing column, Unavailable for a database that is away."""
    entity: Entity = source.entities[delivery.entity]
    if delivery.path:
        return Taken(
            files.read_file(
                files.Entity.model_validate({"path": "-", "columns": entity.columns}), delivery, into, progress
            )
        )
    digest, count = hashlib.sha256(), 0
    newest = _cursors.read(delivery.since) if delivery.since and entity.cursor else None
    with _rows(source, entity, delivery, into.limit) as (names, rows):
        _check_columns(source, delivery.entity, entity, names)
        into.prepare(names, 1)
        place = names.index(entity.cursor) if entity.cursor else None
        with into.copying(names) as copy:
            for row in rows:
                if into.limit is not None and count >= into.limit:
                    break
                values = [_as_text(value) for value in row]
                copy.write_row(values)
                digest.update(repr(values).encode())
                count += 1
                if place is not None and row[place] is not None and not _cursors.is_ahead(row[place], delivery.until):
                    newest = _newest(source, delivery.entity, newest, row[place])
                if progress and count % BATCH == 0:
                    progress(delivery.name, count, 0)
    return Taken(count, digest.hexdigest(), None if newest is None else _cursors.write(newest))


@contextmanager
def _rows(
    source: Source, entity: Entity, delivery: Delivery, limit: int | None
) -> Iterator[tuple[list[str], Iterator[Row[Any]]]]:
    """Names of the columns, and the rows as they stream in."""
    engine = create_engine(_url(source), hide_parameters=True)
    quote = engine.dialect.identifier_preparer.quote  # only where a name needs it
    inner = f"({entity.query}\n)" if entity.query else ".".join(quote(part) for part in str(entity.table).split("."))
    statement, bound = f"select * from {inner} q", {}  # noqa: S608 - what the data engineer wrote, run with the rights of the connection
    if entity.cursor and delivery.since:
        bound = {"since": _cursors.before(_cursors.read(delivery.since), entity.look_back)}
        statement += f" where q.{quote(entity.cursor)} >= :since"
    try:
        with engine.connect() as conn, _reading(conn) as reading:
            result = reading.execute(text(re.sub(r"(?<!:):(?=\w)(?!since\b)", r"\:", statement)), bound)
            yield list(result.keys()), iter(result)
    except DBAPIError as error:
        raise _told(source, delivery.entity, error) from None
    except (SQLAlchemyError, ImportError) as error:
        raise _mend(source, f"the database cannot be used ({type(error).__name__}); check the connection") from None
    finally:
        engine.dispose()


@contextmanager
def _reading(conn: Connection) -> Iterator[Connection]:
    """A connection that streams, and ends without having changed anything."""
    if conn.dialect.name == "postgresql":
        conn = conn.execution_options(postgresql_readonly=True)
    yield conn.execution_options(stream_results=True, yield_per=BATCH)
    conn.rollback()


def _url(source: Source) -> URL:
    access = _connections.access(source)
    try:
        if "://" in access.text and not access.text.lstrip().startswith("{"):
            url = make_url(access.text)
        else:
            extra = {key: str(value) for key, value in access.extra.items() if isinstance(value, str | int)}
            url = URL.create(
                access.scheme, access.login or None, access.password or None, access.host or None, access.port,
                access.path or None, extra,
            )  # fmt: skip
        url = url.difference_update_query(["__extra__"]).set(drivername=_DRIVERS.get(url.drivername, url.drivername))
        url.get_dialect()
    except (ArgumentError, NoSuchModuleError, ImportError, ValueError):
        what = f'the connection "{access.name}" is no database URL that can be used here; write e.g. mysql+pymysql://user:password@host/shop'
        raise _mend(source, what) from None
    return url


def _told(source: Source, name: str, error: DBAPIError) -> InputError | Unavailable:
    """What the database said, without the values and the address that its words may hold."""
    kind = type(error.orig).__name__
    state = getattr(error.orig, "sqlstate", None) or getattr(error.orig, "pgcode", None) or ""
    if kind in ("ProgrammingError", "UndefinedColumn", "UndefinedTable", "SyntaxError") or state.startswith("42"):
        what = f"the database does not understand the query ({kind}); check names and syntax"
        return InputError([source.fault("entities", name, message=what)])
    if kind == "OperationalError" and re.search(r"no such (table|column)|syntax error", str(error.orig)):  # SQLite
        return InputError(
            [source.fault("entities", name, message="the database knows no such table or column; check the names")]
        )
    if state.startswith("28"):
        return _mend(source, "the database refuses the login of the connection; check user and password")
    return Unavailable(f"{source.id}: the database does not answer as it should ({kind}{' ' + state if state else ''})")


def _mend(source: Source, what: str) -> InputError:
    return InputError([source.fault("connection", message=what)])


def _check_columns(source: Source, name: str, entity: Entity, found: list[str]) -> None:
    wanted = (*entity.columns, *([entity.cursor] if entity.cursor else []))
    faults = [
        source.fault(
            "entities",
            name,
            "columns",
            message=f"{column}: the database gives no such column{did_you_mean(column, found)}",
        )
        for column in dict.fromkeys(wanted)
        if column not in found
    ]
    if len(set(found)) < len(found) or set(found) & set(ROW_COLUMNS):
        faults.append(
            source.fault(
                "entities", name, message="two columns have one name, or one is kept for the row's origin; rename it"
            )
        )
    if faults:
        raise InputError(faults)


def _newest(source: Source, name: str, so_far: Any, value: Any) -> Any:
    try:
        _cursors.write(value)
        return value if so_far is None or value > so_far else so_far
    except TypeError:
        what = f"the cursor column holds {type(value).__name__} values, which cannot be compared with those before; take another one"
        raise InputError([source.fault("entities", name, "cursor", message=what)]) from None


def _as_text(value: Any) -> str | None:
    """A value as text that a mapping can read. Blank is null, as in files."""
    if value is None or isinstance(value, str):
        return value.replace("\0", "") or None if value else None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime | date | wall_time):
        return value.isoformat()
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value).hex()
    return str(value) if isinstance(value, int | float | UUID) else json.dumps(value, ensure_ascii=False, default=str)
