"""A copy of the database to simulate on, and its end: whatever happens, the copy goes and the original is never written to.

Where nobody else is connected the server copies files (CREATE DATABASE ... TEMPLATE). Elsewhere all tables are read in one
snapshot and streamed into a fresh database: a live system is copied while it runs. A process of its own waits for ours to end and
drops the copy then, so that it goes even when we are killed; what a dead machine left is dropped by the next simulation.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from graphlib import TopologicalSorter
from secrets import token_hex
from typing import Any

import psycopg
from psycopg import sql
from sqlalchemy.engine import URL

from postlude import db
from postlude.errors import InputError, Unavailable

PREFIX = "postlude_sim_"
# of no use to a simulation, and large: their rows stay behind
LEFT_BEHIND = frozenset({"quarantine", "kept_letters", "webhook_tokens", "gate_results", "banners"})
_LOCK = 72060030


@contextmanager
def copied(url: URL, template: bool = True) -> Iterator[URL]:
    """URL of a copy of the database, dropped at the end of the block and of this process, however it ends.

    template: False never copies files. Raises InputError when the role may not create databases, Unavailable without a server.
    """
    name = f"{PREFIX}{os.getpid()}_{token_hex(4)}"
    with _admin(url) as admin:
        sweep(admin)
        # held as long as we live: nobody takes our copy for one that was left over
        admin.execute("select pg_advisory_lock(%s, hashtext(%s))", (_LOCK, name))
        watchman = _watchman(url, name)
        try:
            if not (template and _by_files(admin, url, name)):
                _by_rows(admin, url, name)
            yield url.set(database=name)
        finally:
            _drop(admin, name)
            watchman.stdin.close()  # type: ignore[union-attr]
            watchman.wait(30)


def sweep(admin: psycopg.Connection[Any]) -> list[str]:
    """Drop copies whose simulation is gone; their names."""
    left = [
        row[0] for row in admin.execute("select datname from pg_database where starts_with(datname, %s)", (PREFIX,))
    ]
    dropped = []
    for name in left:
        if admin.execute("select pg_try_advisory_lock(%s, hashtext(%s))", (_LOCK, name)).fetchone() == (True,):
            _drop(admin, name)
            admin.execute("select pg_advisory_unlock(%s, hashtext(%s))", (_LOCK, name))
            dropped.append(name)
    return dropped


def dsn(url: URL) -> str:
    """For psycopg itself."""
    return url.set(drivername="postgresql").render_as_string(hide_password=False)


@contextmanager
def _admin(url: URL) -> Iterator[psycopg.Connection[Any]]:
    try:
        admin = psycopg.connect(dsn(url.set(database="postgres")), autocommit=True)
    except psycopg.OperationalError as error:
        raise Unavailable(f"the database does not answer: {str(error).splitlines()[0]}") from error
    try:
        yield admin
    finally:
        admin.close()


def _drop(admin: psycopg.Connection[Any], name: str) -> None:
    admin.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))


def _watchman(url: URL, name: str) -> subprocess.Popen[bytes]:
    """A process that drops the copy once our end of its pipe is closed, by us or by our death. It outlives Ctrl-C."""
    code = (
        "import sys, psycopg\n"
        "dsn, name = sys.stdin.buffer.readline().decode().split('\\t')\n"
        "sys.stdin.buffer.read()\n"
        "with psycopg.connect(dsn, autocommit=True) as conn:\n"
        "    conn.execute('drop database if exists \"' + name.strip() + '\" with (force)')\n"
    )
    watchman = subprocess.Popen(
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    assert watchman.stdin
    # by the pipe and not as an argument: it may hold a password
    watchman.stdin.write(f"{dsn(url.set(database='postgres'))}\t{name}\n".encode())
    watchman.stdin.flush()
    return watchman


def _by_files(admin: psycopg.Connection[Any], url: URL, name: str) -> bool:
    """Let the server copy; False where it may not: somebody is connected, or the role does not own the database."""
    statement = sql.SQL("create database {} template {}").format(
        sql.Identifier(name), sql.Identifier(str(url.database))
    )
    try:
        admin.execute(statement)
        return True
    except psycopg.errors.ObjectInUse:
        return False
    except psycopg.errors.InsufficientPrivilege:
        return False


def _by_rows(admin: psycopg.Connection[Any], url: URL, name: str) -> None:
    try:
        admin.execute(sql.SQL("create database {}").format(sql.Identifier(name)))
    except psycopg.errors.InsufficientPrivilege:
        raise InputError(
            "a simulation needs a copy of the database, and this role may not create one; run once as a superuser: "
            "alter role ... createdb"
        ) from None
    copy = url.set(database=name)
    db.migrate(copy)
    with psycopg.connect(dsn(url)) as source, psycopg.connect(dsn(copy)) as target:
        source.execute("set transaction isolation level repeatable read, read only")
        _stream(source, target)


def _stream(source: psycopg.Connection[Any], target: psycopg.Connection[Any]) -> None:
    """All tables of the schema, those that others point at first; triggers rest meanwhile, for what they did is in the rows."""
    tables = _in_order(source)
    for table in tables:
        target.execute(sql.SQL("alter table postlude.{} disable trigger user").format(sql.Identifier(table)))
    # what the migration filled is replaced by what is there
    target.execute(
        sql.SQL("truncate {} cascade").format(
            sql.SQL(", ").join(sql.SQL("postlude.{}").format(sql.Identifier(t)) for t in tables)
        )
    )
    for table in tables:
        names = sql.SQL(", ").join(map(sql.Identifier, columns(source, table)))
        out = sql.SQL("copy (select {} from postlude.{}) to stdout (format binary)").format(
            names, sql.Identifier(table)
        )
        into = sql.SQL("copy postlude.{} ({}) from stdin (format binary)").format(sql.Identifier(table), names)
        with source.cursor().copy(out) as rows, target.cursor().copy(into) as sink:
            for chunk in rows:
                sink.write(chunk)
    for table in tables:
        target.execute(sql.SQL("alter table postlude.{} enable trigger user").format(sql.Identifier(table)))
    for name, last in source.execute(
        "select sequencename, last_value from pg_sequences where schemaname = 'postlude'"
    ).fetchall():
        if last is not None:
            target.execute("select setval(format('postlude.%%I', %s::text)::regclass, %s)", (name, last))
    target.commit()
    with suppress(psycopg.Error):
        target.autocommit = True
        target.execute("analyze")


def _in_order(conn: psycopg.Connection[Any]) -> list[str]:
    tables = [row[0] for row in conn.execute(
        "select c.relname from pg_class as c where c.relnamespace = 'postlude'::regnamespace and c.relkind = 'r' "
        "and c.relname <> 'schema_version' order by 1"
    )]  # fmt: skip
    graph: dict[str, set[str]] = {table: set() for table in tables}
    for child, parent in conn.execute(
        "select a.relname, b.relname from pg_constraint as k join pg_class as a on a.oid = k.conrelid "
        "join pg_class as b on b.oid = k.confrelid where k.contype = 'f' and k.connamespace = 'postlude'::regnamespace"
    ):
        if child != parent:
            graph[child].add(parent)
    found, left = list[str](), set(LEFT_BEHIND)
    for table in TopologicalSorter(graph).static_order():
        if table in left or graph[table] & left:
            left.add(table)  # it would point at rows that are not there
        else:
            found.append(table)
    return found


def columns(conn: psycopg.Connection[Any], table: str) -> list[str]:
    return [row[0] for row in conn.execute(
        "select a.attname from pg_attribute as a where a.attrelid = format('postlude.%%I', %s::text)::regclass "
        "and a.attnum > 0 and not a.attisdropped and a.attgenerated = '' order by a.attnum", (table,)
    )]  # fmt: skip
