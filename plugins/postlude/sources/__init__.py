# ruff: noqa: S608 - names of tables are checked and quoted
"""Where orders come from: one YAML file per shop, one module per kind of source, found by its file name.

A new layout of a known kind is one YAML file in include/sources and one SQL mapping file in include/sql/sources, and
no Python. A new kind is a module beside this one that offers what `Reader` says.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol, cast
from zoneinfo import ZoneInfo

import psycopg
from pydantic import AfterValidator, ConfigDict, Field, PrivateAttr, create_model
from sqlalchemy import Connection, text

from postlude import yamlfile
from postlude.errors import Fault, InputError
from postlude.settings import settings
from postlude.timing import Duration
from postlude.yamlfile import Strict

Progress = Callable[[str, int, int], None]
"""Called as progress(label, done, total) now and then; labels are names of files and tables, never of people."""


def _known_zone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise ValueError(f'"{name}" is not a time zone; write e.g. "Europe/Berlin" or "UTC"') from None
    return name


def _known_kind(name: str) -> str:
    if name not in kinds():
        raise ValueError(f'there is no kind "{name}"{yamlfile.did_you_mean(name, kinds())}')
    return name


def _known_mapping(name: str) -> str:
    if not mapping_path(name).is_file():
        raise ValueError(f'there is no file "{name}" in {yamlfile.shown(mapping_path("x").parent)}; check the name')
    return name


ROW_COLUMNS = ("_file", "_line")


def quoted(name: str) -> str:
    """`name` as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


Name = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,29}$")]


class Source(Strict):
    """A shop and where its orders come from. `entities` are what is read, as the kind of source describes it."""

    id: Name
    shop: str = Field(min_length=1, description="the shop's name as customers know it")
    kind: Annotated[str, AfterValidator(_known_kind)]
    currency: str = Field(pattern="^[A-Z]{3}$", description="ISO 4217; an order in another currency is refused")
    time_zone: Annotated[str, AfterValidator(_known_zone)] = Field(
        description="of times without offset, and of shop days"
    )
    locale: str = Field("en", pattern="^[a-z]{2,3}(-[A-Z][a-z]{3})?(-[A-Z]{2})?$")
    monetary: Literal["lines", "paid"] = Field(
        "lines", description="what an order is worth: its lines, or what was paid"
    )
    fresh_within: Duration = Field(
        timedelta(hours=36), description="without a newer order for so long the feed is stale"
    )
    statuses: frozenset[str] | None = Field(
        None, description="every status an order can have; a row with another one is refused. Empty: any will do"
    )
    quiet_days: frozenset[Annotated[str, Field(pattern=r"^(\d{4}-)?\d{2}-\d{2}$")]] = Field(
        frozenset(), description="days without (or with few) orders: 2026-12-27, or 12-25 for every year"
    )
    review_scale: Literal[5, 10] = Field(5, description="reviews are stars of 5, or 0 to 10")
    snapshot: bool = Field(False, description="the files belong together: when one is new, all are read again")
    scheduled: bool = Field(True, description="false: only loaded when named (`postlude ingest --source FILE`)")
    live: bool = Field(
        False,
        description="true: also asked every few minutes, by the DAG `transactional`; for shops that tell what is new",
    )
    connection: Name | None = Field(
        None, description="name of the connection that holds address and secrets; they never stand in this file"
    )
    mapping: Annotated[str, AfterValidator(_known_mapping)] = Field(description="file in include/sql/sources")
    entities: dict[Name, Any] = Field(min_length=1)
    _file: str = PrivateAttr("")

    @property
    def file(self) -> str:
        """Name of the YAML file for messages; empty for a source that was made in memory."""
        return self._file

    def fault(self, *loc: str, message: str) -> Fault:
        """A fault of this file at the key `loc`."""
        return Fault(self._file, yamlfile.line_of(self._file, loc) if self._file else 0, yamlfile.key_of(loc), message)


@dataclass(frozen=True)
class Delivery:
    """One file, or one pull from a shop, of one raw entity.

    A file has a `checksum`, which tells whether it was loaded before. A pull has none before it is read: it always is
    read, from the place `since` where the last loaded one ended, and moves that place up to instants not after `until`.
    """

    entity: str
    name: str
    checksum: str = ""
    path: Any = None  # a Path, or a UPath of an object store; a pull has none, unless it is read from a sample
    size: int = 0
    since: str | None = None
    until: datetime | None = None


@dataclass(frozen=True)
class Taken:
    """What reading a delivery gave: its rows, and for a pull the checksum of them and where the next one begins."""

    rows: int
    checksum: str = ""
    cursor: str | None = None


@dataclass(frozen=True)
class RawTable:
    """The temporary table that takes the deliveries of one raw entity as text, until the transaction ends.

    Beside the delivered columns it has `_file`, the number of the delivery in this run, and `_line`, the row's line
    (a header being line 1; line breaks inside quotes are not counted). `limit`: no more rows are wanted (a sample).
    """

    conn: Connection
    name: str
    number: int
    limit: int | None = None

    def prepare(self, columns: Sequence[str], first_line: int) -> None:
        """Make the table ready for the rows of delivery `number`, which has these columns."""
        table = f"pg_temp.{quoted(self.name)}"
        row = "_file int, _line bigint generated always as identity"
        self._execute(f"create temporary table if not exists {quoted(self.name)} ({row}) on commit drop")
        for column in columns:
            self._execute(f"alter table {table} add column if not exists {quoted(column)} text")
        self._execute(f"alter table {table} alter column _file set default {int(self.number)}")
        self._execute(f"alter table {table} alter column _line restart with {int(first_line)}")

    @contextmanager
    def copying(self, columns: Sequence[str], options: str = "") -> Iterator[psycopg.Copy]:
        """A COPY into these columns of the prepared table; `options` as `with (...)` takes them, empty: rows of text."""
        listed = ", ".join(quoted(column) for column in columns)
        raw = self.conn.connection.driver_connection
        assert raw is not None
        given = f" with ({options})" if options else ""
        # the cursor stays open: it knows the number of rows once the block has ended
        with raw.cursor().copy(f"copy pg_temp.{quoted(self.name)} ({listed}) from stdin{given}") as copy:
            yield copy

    def keep_newest(self) -> int:
        """Of rows of this delivery with the same `id` only the newest stays (by `updated_at`, then the last read); how many do."""
        newest = f"""
            delete from pg_temp.{quoted(self.name)} as older using (
                select ctid, row_number() over (
                    partition by id order by postlude.to_instant(updated_at) desc nulls last, _line desc
                ) as nth
                from pg_temp.{quoted(self.name)} where _file = {int(self.number)}
            ) as version
            where older.ctid = version.ctid and version.nth > 1"""
        self._execute(newest)
        left = self.conn.scalar(
            text(f"select count(*) from pg_temp.{quoted(self.name)} where _file = {int(self.number)}")
        )
        return int(left or 0)

    def _execute(self, statement: str) -> None:
        self.conn.execute(text(statement.replace(":", r"\:")))


class Reader(Protocol):
    """What a module of this package offers. `Entity` describes one of the source's `entities` in YAML.

    An entity has `columns`, those of its raw table. `CONNECTED`: the source file must name a connection.
    """

    Entity: type[Strict]
    CONNECTED: bool

    def deliveries(self, source: Source, name: str) -> list[Delivery]:
        """Everything that lies ready for the raw entity `name`, in the order of reading. Raises InputError.

        A shop that is asked over the network gives one pull here, without being asked yet.
        """

    def read(self, source: Source, delivery: Delivery, into: RawTable, progress: Progress | None) -> Taken:
        """Append the delivery to a raw table, whole or not at all.

        Raises InputError for what a person must mend, with file and line; Unavailable for what may pass by itself.
        """

    def sample(self, source: Source, name: str, path: Path) -> Delivery:
        """The delivery to be read from a file that somebody saved as an example of the raw entity `name`."""


def kinds() -> list[str]:
    """Names of the kinds of source there are."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_"))


def reader(kind: str) -> Reader:
    """The module of one kind of source."""
    return cast(Reader, importlib.import_module(f"{__name__}.{kind}"))


class _Kind(Strict):
    model_config = ConfigDict(extra="ignore")
    kind: Annotated[str, AfterValidator(_known_kind)]


def load_source(path: Path | str) -> Source:
    """The source file at `path`. Raises InputError with every fault."""
    words = yamlfile.read_text(path)
    file = yamlfile.shown(path)
    kind = yamlfile.parse(words, file, _Kind).kind
    entity = reader(kind).Entity
    model = create_model("Source", __base__=Source, entities=(dict[Name, entity], Field(min_length=1)))  # type: ignore[valid-type]
    source = yamlfile.parse(words, file, model)
    source._file = file
    if reader(kind).CONNECTED and source.connection is None:
        what = 'is missing; add a line "connection: NAME" (docs/sources.md, "Connections and secrets")'
        raise InputError([Fault(file, yamlfile.line_of(path, ("kind",)), "connection", what)])
    return source


def load_sources(folder: Path | None = None) -> list[Source]:
    """Every source file of a folder (default include/sources), by id. Raises InputError with the faults of all."""
    found: dict[str, Source] = {}
    faults: list[Fault] = []
    for path in sorted((folder or settings().include / "sources").glob("*.yml")):
        try:
            source = load_source(path)
        except InputError as error:
            faults += error.faults
            continue
        if source.id in found:
            faults.append(
                source.fault("id", message=f'"{source.id}" is the id of {found[source.id].file} too; rename one')
            )
        found[source.id] = source
    if faults:
        raise InputError(faults)
    return [found[key] for key in sorted(found)]


# ---------------------------------------------------------------- mapping files


@dataclass(frozen=True)
class Section:
    """One select of a mapping file: the canonical entity it fills, its text, the line on which the text begins."""

    entity: str
    sql: str
    line: int


def mapping_path(name: str) -> Path:
    """The mapping file `name`: below include/sql/sources, or anywhere by its absolute path."""
    return settings().sql / "sources" / name


def mapping(source: Source) -> tuple[str, list[Section]]:
    """Name (for messages) and sections of the source's mapping file: `-- entity: orders`, then one select each."""
    path = mapping_path(source.mapping)
    file = yamlfile.shown(path)
    sections: list[Section] = []
    faults: list[Fault] = []
    for number, line in enumerate(yamlfile.read_text(path).splitlines(), 1):
        head = re.fullmatch(r"--\s*entity\s*:\s*(\S+)\s*", line)
        if head:
            if any(section.entity == head[1] for section in sections):
                faults.append(Fault(file, number, head[1], "stands here again; keep one select for each entity"))
            sections.append(Section(head[1], "", number + 1))
        elif sections:
            last = sections[-1]
            sections[-1] = Section(last.entity, f"{last.sql}{line}\n", last.line)
        elif line.strip() and not line.lstrip().startswith("--"):
            faults.append(
                Fault(file, number, "", 'this text belongs to no entity; begin with a line "-- entity: orders"')
            )
    sections = [Section(s.entity, re.sub(r";\s*\Z", "\n", s.sql), s.line) for s in sections]
    faults += [
        Fault(file, s.line - 1, s.entity, "has no select below it; write one, or take the heading out")
        for s in sections
        if not re.sub(r"--[^\n]*", "", s.sql).strip()
    ]
    if not sections and not faults:
        faults.append(Fault(file, 1, "", 'maps nothing; begin with a line "-- entity: orders" and a select below it'))
    if faults:
        raise InputError(faults)
    return file, sections
