"""The flow library: one shop and one database for each module, so that forty scenarios cost little."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import URL

from flows.shop import Shop
from postlude import db

_number = itertools.count()


@pytest.fixture(scope="module")
def shop(template: URL) -> Iterator[Shop]:
    """A shop of the module's own; every test has customers of its own in it."""
    name = f"flows_{_number.__next__()}_{template.database}"[:60]
    admin = create_engine(db._psycopg(template.set(database="postgres")), isolation_level="AUTOCOMMIT")
    with admin.connect() as conn:
        conn.execute(text(f'create database "{name}" template "{template.database}"'))
    engine = db.engine(template.set(database=name))
    yield Shop(engine, zone="Europe/London")
    engine.dispose()
    with admin.connect() as conn:
        conn.execute(text(f'drop database if exists "{name}" with (force)'))
    admin.dispose()
