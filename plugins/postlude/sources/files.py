"""Files as a source: CSV, JSON lines and Parquet, plain or gzipped, streamed into PostgreSQL by COPY with flat memory.

Everything arrives as text; the mapping file says what it means. A file is known by its content (SHA-256): delivered
again under another name it is not read again. CSV goes straight into COPY, so the database's own strict parser counts
the fields of every row; Parquet goes through DuckDB.
"""

from __future__ import annotations

import codecs
import csv
import gzip
import hashlib
import io
import itertools
import json
import os
import re
import shutil
import tempfile
import threading
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import psycopg
from pydantic import Field, field_validator

from postlude.errors import Fault, InputError, Unavailable
from postlude.settings import settings
from postlude.sources import ROW_COLUMNS, Delivery, Progress, RawTable, Source, Taken, _connections, quoted
from postlude.yamlfile import Strict, did_you_mean, shown

CONNECTED = False
CHUNK = 1 << 20
_SUFFIXES = {".csv": "csv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".parquet": "parquet"}


class Entity(Strict):
    """The files of one raw entity. `${NAME:-default}` in the path is taken from the environment."""

    path: str = Field(
        min_length=1,
        description="glob, relative to the project folder, or in an object store: s3://CONNECTION@bucket/orders/*.csv.gz",
    )
    format: Literal["csv", "jsonl", "parquet"] | None = Field(
        None, description="by default from the ending of the name"
    )
    columns: tuple[str, ...] = Field(
        min_length=1, description="columns that must be there; others are read but not needed"
    )
    encoding: str = "utf-8"
    delimiter: str = Field(",", min_length=1, max_length=1)
    optional: bool = Field(False, description="no file at all is no fault")

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, name: str) -> str:
        try:
            return codecs.lookup(name).name
        except LookupError:
            raise ValueError(f'"{name}" is not an encoding; write e.g. "utf-8" or "cp1252"') from None

    @field_validator("columns")
    @classmethod
    def _usable_columns(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if taken := [name for name in names if name in ROW_COLUMNS]:
            raise ValueError(f"{', '.join(taken)}: this name is kept for the origin of the row")
        return names


def deliveries(source: Source, name: str) -> list[Delivery]:
    """The files that match the entity's path, by name. Raises InputError when there is none and it is not optional."""
    spec: Entity = source.entities[name]
    pattern = _expanded(source, name, spec.path)
    if "://" in pattern:
        found, where = _objects(source, name, pattern)
    else:
        base = settings().include.parent
        parts = Path(pattern)
        if parts.is_absolute():
            base, parts = Path(parts.anchor), parts.relative_to(parts.anchor)
        found = sorted(path for path in base.glob(str(parts)) if path.is_file())
        where = shown(os.path.normpath(base / parts))
    if not found and not spec.optional:
        what = f"no file matches {where}; check the path, or deliver the file"
        raise InputError([source.fault("entities", name, "path", message=what)])
    return [Delivery(name, path.name, _checksum(path), path, path.stat().st_size) for path in found]


def _objects(source: Source, name: str, pattern: str) -> tuple[list[Any], str]:
    """The objects of a store that match `scheme://[CONNECTION@]bucket/folder/*.csv`, by name, and the pattern as it is shown.

    The options of the store come from the connection in the path, else from the source's: its extra, and of s3 login
    and password as key and secret.
    """
    from upath import UPath

    scheme, _, rest = pattern.partition("://")
    connection = ""
    if "@" in rest.partition("/")[0]:
        connection, _, rest = rest.partition("@")
    known = connection or source.connection
    options: dict[str, Any] = {}
    if known:
        access = _connections.access(source, known)
        named = {"key": access.login, "secret": access.password} if scheme in ("s3", "s3a") else {}
        options = {key: value for key, value in named.items() if value} | access.extra
    place = f"{scheme}://{rest}"
    fixed = re.split(r"[^/]*[*?\[]", rest, maxsplit=1)[0]
    try:
        root = UPath(f"{scheme}://{fixed}", **options)
        below = rest[len(fixed) :]
        return sorted((path for path in (root.glob(below) if below else [root]) if path.is_file()), key=str), place
    except (ImportError, ValueError):
        what = f"{scheme}:// needs a package that is not installed (s3fs, gcsfs, adlfs, ...), or there is no such store"
        raise InputError([source.fault("entities", name, "path", message=what)]) from None
    except PermissionError:
        what = f"{place} may not be read with this connection; check its rights"
        raise InputError([source.fault("entities", name, "path", message=what)]) from None
    except FileNotFoundError:
        return [], place
    except Exception as error:  # each store has errors of its own, whose words may hold addresses and keys
        raise Unavailable(f"{source.id}: {scheme}:// does not answer ({type(error).__name__})") from None


def sample(source: Source, name: str, path: Path) -> Delivery:
    """Any file of the entity's format."""
    return Delivery(name, path.name, _checksum(path), path, path.stat().st_size)


def read(source: Source, delivery: Delivery, into: RawTable, progress: Progress | None = None) -> Taken:
    """Append one file to a raw table; the rows read.

    Raises InputError as `read_file` does.
    """
    return Taken(read_file(source.entities[delivery.entity], delivery, into, progress))


def read_file(entity: Entity, delivery: Delivery, into: RawTable, progress: Progress | None = None) -> int:
    """Append one file to a raw table; the number of rows read.

    Raises InputError, with file and line, for a missing column, a byte that does not decode, a damaged or cut-off file,
    a row with too many or too few fields.
    """
    file = _shown(delivery.path)
    ending = delivery.path.with_suffix("") if delivery.path.suffix == ".gz" else delivery.path
    kind = entity.format or _SUFFIXES.get(ending.suffix.lower())
    if kind is None:
        raise InputError(
            [Fault(file, 0, "", f'"{ending.suffix}" says nothing about the format; add "format: csv" to the entity')]
        )
    if delivery.size == 0:
        raise InputError([Fault(file, 1, "", "the file is empty; deliver it again")])
    rows = {"csv": _csv, "jsonl": _jsonl, "parquet": _parquet}[kind](entity, delivery, into, progress)
    if progress:
        progress(delivery.name, delivery.size, delivery.size)
    return rows


def _expanded(source: Source, name: str, path: str) -> str:
    def value(hit: re.Match[str]) -> str:
        found = os.environ.get(hit[1]) or hit[3]
        if found is None:
            what = f'the variable {hit[1]} is not set; set it, or write a default: "${{{hit[1]}:-folder}}"'
            raise InputError([source.fault("entities", name, "path", message=what)])
        return found

    return re.sub(r"\$\{(\w+)(:-([^}]*))?\}", value, path)


def _checksum(path: Any) -> str:
    """SHA-256 of the content; of an object the checksum its store keeps, where it does, so that nothing is fetched to know it."""
    try:
        if not isinstance(path, Path):
            about = path.fs.info(path.path)
            for key in ("ETag", "etag", "md5Hash", "content_md5"):
                if about.get(key):
                    return f"{key.lower()}:{about[key]}"
        with path.open("rb") as content:
            digest = hashlib.sha256()
            while chunk := content.read(CHUNK):
                digest.update(chunk)
            return digest.hexdigest()
    except OSError as error:
        raise InputError(
            [Fault(_shown(path), 0, "", f"cannot be read ({error.strerror}); check its permissions")]
        ) from None


def _shown(path: Any) -> str:
    return shown(path) if isinstance(path, Path) else str(path)


@contextmanager
def _local(path: Any) -> Iterator[Path]:
    """The file itself, or a copy of an object for as long as the block lasts: Parquet is read from its end."""
    if isinstance(path, Path):
        yield path
        return
    with tempfile.NamedTemporaryFile(suffix=path.suffix) as copy, path.open("rb") as content:
        shutil.copyfileobj(content, copy, CHUNK)
        copy.flush()
        yield Path(copy.name)


# ---------------------------------------------------------------- text files


def _texts(entity: Entity, delivery: Delivery, progress: Progress | None) -> Iterator[str]:
    """The file's text in chunks of about a megabyte, decoded strictly."""
    file = _shown(delivery.path)
    decoder = codecs.getincrementaldecoder("utf-8-sig" if entity.encoding == "utf-8" else entity.encoding)()
    line = 1
    with delivery.path.open("rb") as packed:
        stream: Any = gzip.GzipFile(fileobj=packed) if delivery.path.suffix == ".gz" else packed
        while True:
            try:
                chunk = stream.read(CHUNK)
                words = decoder.decode(chunk, final=not chunk)
            except EOFError:
                raise InputError(
                    [Fault(file, line, "", "the file is cut off: its gzip stream does not end; deliver it again")]
                ) from None
            except (gzip.BadGzipFile, zlib.error):
                raise InputError(
                    [Fault(file, line, "", "the file is damaged: this is not gzip; deliver it again")]
                ) from None
            except UnicodeDecodeError as error:
                line += error.object.count(b"\n", 0, error.start)
                byte = error.object[error.start]
                what = f"byte 0x{byte:02x} is not {entity.encoding}; mend it, or name its encoding in the source file"
                raise InputError([Fault(file, line, "", what)]) from None
            if "\0" in words:
                line += words.count("\n", 0, words.index("\0"))
                raise InputError(
                    [Fault(file, line, "", "holds a zero byte; the file is damaged or has another encoding")]
                )
            line += words.count("\n")
            if words:
                yield words
            if not chunk:
                return
            if progress:
                progress(delivery.name, packed.tell(), delivery.size)


def _csv(entity: Entity, delivery: Delivery, into: RawTable, progress: Progress | None) -> int:
    file = _shown(delivery.path)
    texts = _texts(entity, delivery, progress)
    first = io.StringIO(next(texts, ""), newline="")
    records = csv.reader(first, delimiter=entity.delimiter)
    header = next(records, [])
    if not any(header):
        raise InputError([Fault(file, 1, "", "the first line holds no column names; deliver the file again")])
    _check_columns(file, header, entity.columns, 1)
    into.prepare(header, first_line=2)
    delimiter = entity.delimiter.replace("'", "''")
    with _copying(into, file, header, records.line_num, f"delimiter '{delimiter}'") as (copy, rows):
        rest = itertools.chain([first.read()], texts)  # what the header left over comes first
        for words in rest if into.limit is None else _first_records(rest, into.limit):
            copy.write(words)
    return rows()


def _first_records(texts: Iterable[str], limit: int) -> Iterator[str]:
    """The first lines of a CSV text; a line break inside quotes ends no record."""
    open_quote = False
    for line in _lines(texts):
        if limit <= 0:
            return
        if line or open_quote:
            yield f"{line}\n"
        open_quote ^= line.count('"') % 2 == 1
        limit -= not open_quote and bool(line)


def _jsonl(entity: Entity, delivery: Delivery, into: RawTable, progress: Progress | None) -> int:
    file = _shown(delivery.path)
    into.prepare(entity.columns, first_line=1)
    seen: set[str] = set()
    with _copying(into, file, entity.columns, 0, None) as (copy, rows):
        for line, words in enumerate(_lines(_texts(entity, delivery, progress)), 1):
            if not words.strip():
                continue
            if into.limit is not None and line > into.limit:
                break
            try:
                # numbers stay as written: 0.10 must not become 0.1, nor a long id lose digits
                item = json.loads(words, parse_float=str, parse_int=str)
            except ValueError:
                item = None
            if not isinstance(item, dict):
                raise InputError([Fault(file, line, "", 'is not a JSON object; write one {"...": ...} per line')])
            seen.update(item)
            copy.write_row([_as_text(item.get(column)) for column in entity.columns])
        if seen:  # a key no row has is a missing column; a key some rows lack is an empty value
            _check_columns(file, sorted(seen), entity.columns, 1)
    if seen:  # a key nobody asked for is noted, not read
        into.prepare(sorted(seen), first_line=1)
    return rows()


def _lines(texts: Iterable[str]) -> Iterator[str]:
    rest = ""
    for words in texts:
        *whole, rest = (rest + words).split("\n")
        yield from whole
    yield rest


def _as_text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value or None
    return json.dumps(value, ensure_ascii=False)


# ---------------------------------------------------------------- Parquet


def _parquet(entity: Entity, delivery: Delivery, into: RawTable, progress: Progress | None) -> int:
    import duckdb

    file = _shown(delivery.path)
    config: dict[str, Any] = {"autoinstall_known_extensions": "false", "threads": "1", "memory_limit": "1GB"}
    with duckdb.connect(config=config) as engine, _local(delivery.path) as path:
        try:
            engine.execute("set TimeZone = 'UTC'")  # instants are written with +00
            content = engine.read_parquet(str(path))
            columns = list(content.columns)
            total = content.count("*").fetchall()[0][0]
        except duckdb.Error:
            raise InputError([Fault(file, 0, "", "is not a whole Parquet file; deliver it again")]) from None
        _check_columns(file, columns, entity.columns, 0)
        into.prepare(columns, first_line=1)
        if into.limit is not None:
            content = content.limit(into.limit)
        content.create_view("content")
        with _copying(into, file, columns, 0, "") as (copy, rows):
            done = 0
            for chunk in _csv_of(engine, file):
                copy.write(chunk)
                done += chunk.count(b"\n")
                if progress:
                    progress(delivery.name, min(done, total), total)
    return rows()


def _csv_of(engine: Any, file: str) -> Iterator[bytes]:
    """The view `content` as CSV, written by a thread into a pipe: no side waits for the whole, nothing is kept."""
    import duckdb

    reading, writing = os.pipe()
    failed: list[str] = []

    def produce() -> None:
        try:
            engine.cursor().execute(f"copy (from content) to '/dev/fd/{writing}' (format csv, header false)")
        except duckdb.Error as error:
            failed.append(str(error).splitlines()[0])
        finally:
            os.close(writing)

    thread = threading.Thread(target=produce, name="parquet", daemon=True)
    thread.start()
    try:
        while chunk := os.read(reading, CHUNK):
            yield chunk
    finally:
        os.close(reading)  # a producer that is not done yet gets a broken pipe
        thread.join()
    if failed:
        raise InputError([Fault(file, 0, "", "the Parquet file is damaged; deliver it again")])


# ---------------------------------------------------------------- shared


def _check_columns(file: str, found: Sequence[str], wanted: Sequence[str], line: int) -> None:
    spare = [column for column in found if column not in wanted]
    faults = [
        Fault(
            file, line, column, f"this column is missing{did_you_mean(column, spare) or '; deliver the file with it'}"
        )
        for column in wanted
        if column not in found
    ]
    for column in dict.fromkeys(found):
        if found.count(column) > 1:
            faults.append(Fault(file, line, column, "this column is there twice; rename one"))
        if not column.strip() or column in ROW_COLUMNS:
            faults.append(
                Fault(file, line, column, "a column has no name, or one that is kept for the row's origin; rename it")
            )
    if faults:
        raise InputError(faults)


@contextmanager
def _copying(
    into: RawTable, file: str, columns: Sequence[str], skipped: int, csv_options: str | None
) -> Iterator[tuple[psycopg.Copy, Callable[[], int]]]:
    """A COPY into the raw table, as CSV unless `csv_options` is None; the second value gives the rows after the block.

    The database's complaints become InputErrors with the line of the file; `skipped` lines were read before.
    """
    options = ""
    if csv_options is not None:  # blank is blank, with quotes or without
        listed = ", ".join(quoted(column) for column in columns)
        options = ", ".join(option for option in ("format csv", f"force_null ({listed})", csv_options) if option)
    counted = [0]
    try:
        with into.copying(columns, options) as copy:
            yield copy, lambda: counted[0]
        counted[0] = copy.cursor.rowcount
    except psycopg.DataError as error:
        place = re.search(r"\bline (\d+)", error.diag.context or "")
        said = (error.diag.message_primary or "").split(": ")[0]  # what follows may be a person's data
        what = f"{said}; check the quotes and separators of this row"
        raise InputError([Fault(file, int(place[1]) + skipped if place else 0, "", what)]) from None
