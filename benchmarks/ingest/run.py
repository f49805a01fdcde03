"""How fast orders come in: Parquet → staging → checks → tables, against COPY of the same rows into a bare table.

Makes a sample shop in a folder and an embedded PostgreSQL of its own, loads it, then loads a second delivery with 1 % new
orders, and prints seconds, rows per second, ratios of this one run, and the peak memory of this process. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import duckdb

from postlude import db, intake, quality, sample
from postlude.sources import load_source

ROOT = Path(__file__).resolve().parents[2]
LINES_EACH = 6.2  # order lines per customer of the sample shop


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--lines", type=int, default=1_000_000, help="about so many order lines (default 1,000,000)")
    ask.add_argument(
        "--folder", type=Path, help="where data and database go; default: a temporary folder, removed at the end"
    )
    ask.add_argument("--keep", action="store_true", help="keep the folder")
    wanted = ask.parse_args()
    home = wanted.folder or Path(tempfile.mkdtemp(prefix="postlude-ingest-"))
    os.environ["POSTLUDE_HOME"] = str(home)
    url = db.start_embedded(home / "postgres", "-c shared_buffers=512MB -c max_wal_size=8GB -c synchronous_commit=off")
    try:
        measure(home, url.set(database="bench"), round(wanted.lines / LINES_EACH))
    finally:
        db.stop_embedded(home / "postgres")
        if not wanted.keep:
            shutil.rmtree(home, ignore_errors=True)


def measure(home: Path, url: db.URL, customers: int) -> None:
    seconds: dict[str, float] = {}

    @contextmanager
    def timed(what: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        seconds[what] = time.perf_counter() - start
        print(f"{what:44}{seconds[what]:9.1f} s   peak memory {peak():,.0f} MB", flush=True)

    now = datetime.now(UTC)
    db.create_database(url)
    db.migrate(url)
    engine = db.engine(url)
    with timed("make the sample shop"):
        made = sample.generate(home / "sample", customers, 7, now)
    rows = sum(count for entity, count in made.items() if entity != "faulty")
    print(f"{made['order_lines']:,} order lines, {rows:,} rows of all entities, {customers:,} customers")
    with timed("COPY of the same rows into bare tables"):
        bare(engine, home / "sample")
    source = load_source(ROOT / "include" / "sources" / "sample_shop.yml")

    def one_pass(name: str) -> dict[str, int]:
        with timed(f"{name}: extract"), db.transaction(engine) as conn:
            intake.extract(conn, source, now, "bench")
        with timed(f"{name}: gate"):
            quality.check(url, "orders", subject=source.id, now=now, run_id=f"bench-{name}")
        with timed(f"{name}: load"), db.transaction(engine) as conn:
            return intake.load(conn, source, now, "bench")

    counts = one_pass("first")
    first = seconds["first: extract"] + seconds["first: load"]
    print(f"loaded {counts['rows_loaded']:,} rows, {counts['rows_loaded'] / first:,.0f} rows/s")
    print(f"extract + load / bare COPY: {first / seconds['COPY of the same rows into bare tables']:.1f}")
    new = more(home / "sample", 0.01)
    counts = one_pass("1 % more")
    again = seconds["1 % more: extract"] + seconds["1 % more: load"]
    print(f"{new:,} new orders; loaded {counts['rows_loaded']:,} rows; time / first load: {again / first:.3f}")
    one_pass("nothing new")


def peak() -> float:
    """Peak resident memory of this process, MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def bare(engine: db.Engine, folder: Path) -> None:
    """COPY every entity as text into tables without keys, checks or indexes."""
    read = duckdb.connect()
    with engine.begin() as conn:
        cursor = conn.connection.driver_connection.cursor()
        for entity in sorted(path.name for path in folder.iterdir()):
            rows = read.sql(f"select columns(*)::varchar from '{folder}/{entity}/*.parquet'")
            columns = ", ".join(f'"{name}" text' for name in rows.columns)
            cursor.execute(f"create table public.bare_{entity} ({columns})")
            with cursor.copy(f"copy public.bare_{entity} from stdin") as copy:
                while batch := rows.fetchmany(10_000):
                    for row in batch:
                        copy.write_row(row)


def more(folder: Path, share: float) -> int:
    """A second delivery: new orders of known customers, with their lines. Returns how many orders."""
    read = duckdb.connect()
    every = round(1 / share)
    for entity, key in (("orders", "order_id"), ("order_lines", "order_id")):
        read.execute(
            f"copy (select * replace (order_id || '-n' as order_id) from '{folder}/{entity}/*.parquet' "
            f"where hash({key}) % {every} = 0) to '{folder}/{entity}/part-more.parquet' (format parquet)"
        )
    found = read.sql(f"select count(*) from '{folder}/orders/part-more.parquet'").fetchone()
    return int(found[0]) if found else 0


if __name__ == "__main__":
    main()
