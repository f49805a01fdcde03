"""The schema: from nothing to head, explained, with the stable names, and its functions equal to their Python twins."""

from __future__ import annotations

from sqlalchemy import Connection, text
from sqlalchemy.engine import URL

from postlude import db

VIEWS = {
    "orders",
    "order_lines",
    "customers",
    "customer_features",
    "segments",
    "enrolments",
    "messages",
    "events",
    "quarantine",
}


def test_migrating_twice_changes_nothing(database: URL, conn: Connection) -> None:
    version = conn.scalar(text("select version_num from schema_version"))
    db.migrate(database)
    assert conn.scalar(text("select version_num from schema_version")) == version


def test_the_public_views_have_their_stable_names(conn: Connection) -> None:
    names = conn.scalars(text("select table_name from information_schema.views where table_schema = 'public'"))
    assert set(names) >= VIEWS


def test_every_function_explains_itself(conn: Connection) -> None:
    silent = conn.scalars(
        text("""
        select proname from pg_proc where pronamespace = 'postlude'::regnamespace and obj_description(oid, 'pg_proc') is null""")
    )
    assert list(silent) == []


def test_every_table_explains_itself(conn: Connection) -> None:
    silent = conn.scalars(
        text("""
        select relname from pg_class where relnamespace = 'postlude'::regnamespace and relkind = 'r'
        and obj_description(oid, 'pg_class') is null and relname <> 'schema_version'""")
    )
    assert list(silent) == []
