"""The public data sets, loaded once per session into template databases that `uci_engine` and `olist_engine` clone."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.engine import URL

from postlude import db, intake
from postlude.sources import Source, load_source

SOURCES = Path(__file__).resolve().parents[1] / "include" / "sources"
UCI_LOADED = datetime(2010, 12, 10, tzinfo=UTC)
OLIST_LOADED = datetime(2018, 12, 1, tzinfo=UTC)
_number = itertools.count()


def ingest(engine: Engine, source: Source, now: datetime, run_id: str = "test") -> dict[str, int]:
    """Extract and load, each in its transaction, as the pipeline does; the counts of the load."""
    with db.transaction(engine) as conn:
        intake.extract(conn, source, now, run_id)
    with db.transaction(engine) as conn:
        return intake.load(conn, source, now, run_id)


def _clone(url: URL, name: str) -> URL:
    _administer(url, f'create database "{name}" template "{url.database}" strategy file_copy')
    return url.set(database=name)


def _administer(url: URL, statement: str) -> None:
    admin = create_engine(db._psycopg(url.set(database="postgres")), isolation_level="AUTOCOMMIT")
    with admin.connect() as conn:
        conn.execute(text(statement))
    admin.dispose()


def _loaded(template: URL, source: str, now: datetime, folder: Path) -> Iterator[tuple[URL, dict[str, int], float]]:
    """A template database with one real source; its URL, the counts of the load, the seconds it took."""
    url = _clone(template, f"{source}_template_{os.getpid()}")
    engine = db.engine(url)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POSTLUDE_REAL_DATA", str(folder))
        begun = time.monotonic()
        counts = ingest(engine, load_source(SOURCES / f"{source}.yml"), now, "first")
        seconds = time.monotonic() - begun
    engine.dispose()
    yield url, counts, seconds
    _administer(url, f'drop database if exists "{url.database}" with (force)')


def _engine_of(loaded: tuple[URL, dict[str, int], float], folder: Path) -> Iterator[Engine]:
    url = _clone(loaded[0], f"{loaded[0].database}_{next(_number)}")
    engine = db.engine(url)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POSTLUDE_REAL_DATA", str(folder))
        yield engine
    engine.dispose()
    _administer(url, f'drop database if exists "{url.database}" with (force)')


@pytest.fixture(scope="session")
def uci_loaded(template: URL, real_data: Path) -> Iterator[tuple[URL, dict[str, int], float]]:
    yield from _loaded(template, "online_retail", UCI_LOADED, real_data)


@pytest.fixture(scope="session")
def olist_loaded(template: URL, real_data: Path) -> Iterator[tuple[URL, dict[str, int], float]]:
    yield from _loaded(template, "olist", OLIST_LOADED, real_data)


@pytest.fixture
def uci_engine(uci_loaded: tuple[URL, dict[str, int], float], real_data: Path) -> Iterator[Engine]:
    """A database of the test's own with year one of UCI Online Retail II, loaded at 2010-12-10 00:00 UTC."""
    yield from _engine_of(uci_loaded, real_data)


@pytest.fixture
def olist_engine(olist_loaded: tuple[URL, dict[str, int], float], real_data: Path) -> Iterator[Engine]:
    """A database of the test's own with the 3,000 Olist orders, loaded at 2018-12-01 00:00 UTC."""
    yield from _engine_of(olist_loaded, real_data)
