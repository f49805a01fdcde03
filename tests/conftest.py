"""One embedded PostgreSQL per test process, one migrated template database, one clone of it per test."""

from __future__ import annotations

import itertools
import os
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.engine import URL, make_url

warnings.filterwarnings("ignore", message="XDG_RUNTIME_DIR")
os.environ.setdefault("POSTLUDE_SECRET", "a-secret-for-tests-only-0123456789abcdef")
os.environ["POSTLUDE_HOME"] = os.environ.get("POSTLUDE_TEST_HOME") or tempfile.mkdtemp(prefix="postlude-test-")

from postlude import db
from postlude.settings import settings

pytest_plugins = ["realdata"]

ROOT = Path(__file__).resolve().parents[1]
REAL_DATA = Path(os.environ.get("POSTLUDE_REAL_DATA", ROOT.parent / "shared" / "data"))
_number = itertools.count()


@pytest.fixture(scope="session")
def cluster() -> Iterator[URL]:
    """URL of the `postgres` database of a server of our own (or POSTLUDE_TEST_DB_URL); stopped at the end."""
    if settings().test_db_url:
        yield make_url(settings().test_db_url)
        return
    data = Path(tempfile.mkdtemp(prefix="pg-")) / "data"
    yield db.start_embedded(data, "-c fsync=off -c full_page_writes=off -c shared_buffers=256MB")
    db.stop_embedded(data)


@pytest.fixture(scope="session")
def template(cluster: URL) -> URL:
    """A migrated, empty database that tests are cloned from."""
    url = cluster.set(database=f"postlude_template_{os.getpid()}")
    db.create_database(url)
    db.migrate(url)
    return url


@pytest.fixture
def database(template: URL) -> Iterator[URL]:
    """A migrated database of the test's own."""
    name = f"test_{os.getpid()}_{next(_number)}"
    admin = create_engine(db._psycopg(template.set(database="postgres")), isolation_level="AUTOCOMMIT")
    with admin.connect() as conn:
        conn.execute(text(f'create database "{name}" template "{template.database}"'))
    yield template.set(database=name)
    with admin.connect() as conn:
        conn.execute(text(f'drop database if exists "{name}" with (force)'))
    admin.dispose()


@pytest.fixture
def engine(database: URL) -> Iterator[Engine]:
    made = db.engine(database)
    yield made
    made.dispose()


@pytest.fixture
def conn(engine: Engine) -> Iterator[Connection]:
    """One transaction, committed at the end of the test."""
    with engine.begin() as connection:
        yield connection


@pytest.fixture(scope="session")
def real_data() -> Path:
    """Folder of the public data sets; the test is skipped where it is missing."""
    if not (REAL_DATA / "uci_online_retail_ii").is_dir():
        pytest.skip(f"public data sets are not in {REAL_DATA}; set POSTLUDE_REAL_DATA")
    return REAL_DATA
