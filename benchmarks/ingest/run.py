"""How fast orders come in: Parquet → staging → checks → tables, against COPY of the same rows into a bare table.

Makes a sample shop in a folder and an embedded PostgreSQL of its own, loads it, then loads a second delivery with 1 % new
orders, and prints wall seconds, CPU seconds (of all server processes and of this one), ratios of this one run, and the
peak memory of this process in each phase. On a busy machine the ratios of CPU seconds are the ones to trust. Nothing is
asserted. 10 million lines need about 15 GB of disk.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import duckdb
from sqlalchemy import text

from postlude import db, intake, quality
from postlude.sources import load_source

ROOT = Path(__file__).resolve().parents[2]
LINES_EACH = 6.2  # order lines per customer of the sample shop
NEEDED = ("customers", "products", "orders", "order_lines")
TICKS = os.sysconf("SC_CLK_TCK")


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--lines", type=int, default=1_000_000, help="about so many order lines (default 1,000,000)")
    ask.add_argument("--orders-only", action="store_true", help=f"only {', '.join(NEEDED)}: less disk and time")
    ask.add_argument(
        "--folder", type=Path, help="where data and database go; default: a temporary folder, removed at the end"
    )
    ask.add_argument("--keep", action="store_true", help="keep the folder")
    wanted = ask.parse_args()
    home = wanted.folder or Path(tempfile.mkdtemp(prefix="postlude-ingest-"))
    os.environ["POSTLUDE_HOME"] = str(home)
    url = db.start_embedded(home / "postgres", "-c shared_buffers=512MB -c max_wal_size=4GB -c synchronous_commit=off")
    try:
        measure(home, url.set(database="bench"), round(wanted.lines / LINES_EACH), wanted.orders_only)
    finally:
        db.stop_embedded(home / "postgres")
        if not wanted.keep:
            shutil.rmtree(home, ignore_errors=True)


def measure(home: Path, url: db.URL, customers: int, orders_only: bool) -> None:
    took: dict[str, tuple[float, float]] = {}
    postmaster = int((home / "postgres" / "postmaster.pid").read_text().splitlines()[0])

    @contextmanager
    def timed(what: str) -> Iterator[None]:
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        start, used = time.perf_counter(), cpu(postmaster)
        yield
        took[what] = time.perf_counter() - start, cpu(postmaster) - used
        print(f"{what:36}{took[what][0]:9.1f} s  CPU {took[what][1]:8.1f} s  peak {peak():6,.0f} MB", flush=True)

    def ratio(words: str, above: str, below: tuple[float, float]) -> None:
        extract, load = took[f"{above}: extract"], took[f"{above}: load"]
        wall, busy = ((extract[k] + load[k]) / below[k] for k in (0, 1))
        print(f"{words:60} wall {wall:7.3f}   CPU {busy:7.3f}", flush=True)

    now = datetime.now(UTC)
    db.create_database(url)
    db.migrate(url)
    engine = db.engine(url)
    folder = home / "sample"
    make(folder, customers, now, orders_only)
    counted = {path.name: rows(f"{path}/*.parquet") for path in sorted(folder.iterdir())}
    print(f"{counted['order_lines']:,} order lines, {sum(counted.values()):,} rows in all, {customers:,} customers")
    with timed("COPY into bare tables"):
        bare(engine, folder)
    with db.transaction(engine) as conn:
        for entity in counted:
            conn.execute(text(f"drop table public.bare_{entity}"))
    source = load_source(ROOT / "include" / "sources" / "sample_shop.yml")

    def one_pass(name: str, minimum: int | None = None) -> dict[str, int]:
        with timed(f"{name}: extract"), db.transaction(engine) as conn:
            intake.extract(conn, source, now, "bench")
        with timed(f"{name}: gate"):
            quality.check(url, "orders", subject=source.id, now=now, run_id=f"bench-{name}", minimum_rows=minimum)
        with timed(f"{name}: load"), db.transaction(engine) as conn:
            return intake.load(conn, source, now, "bench")

    counts = one_pass("first")
    print(f"loaded {counts['rows_loaded']:,} rows")
    ratio("extract + load / bare COPY", "first", took["COPY into bare tables"])
    first = tuple(a + b for a, b in zip(took["first: extract"], took["first: load"], strict=True))
    new = more(folder, 0.01)
    counts = one_pass("1 % more")
    print(f"{new:,} new orders; loaded {counts['rows_loaded']:,} rows")
    ratio("1 % more / first", "1 % more", first)
    one_pass("nothing new", minimum=0)
    ratio("nothing new / first", "nothing new", first)


def make(folder: Path, customers: int, now: datetime, orders_only: bool) -> None:
    """Write the sample shop in a process of its own, so that its memory is not counted here."""
    script = (
        "import sys; from datetime import datetime; from pathlib import Path; from postlude import sample;"
        "sample.generate(Path(sys.argv[1]), int(sys.argv[2]), 7, datetime.fromisoformat(sys.argv[3]))"
    )
    subprocess.run([sys.executable, "-c", script, str(folder), str(customers), now.isoformat()], check=True)
    for path in sorted(folder.iterdir()) if orders_only else ():
        if path.name not in NEEDED:
            files = sorted(path.glob("*.parquet"))
            duckdb.execute(f"copy (from '{files[0]}' limit 0) to '{path}/none.parquet' (format parquet)")
            for file in files:
                file.unlink()


def rows(files: str) -> int:
    found = duckdb.execute(f"select count(*) from '{files}'").fetchone()
    return int(found[0]) if found else 0


def peak() -> float:
    """Peak resident memory of this process since the phase began, MB."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def cpu(postmaster: int) -> float:
    """CPU seconds used so far by the server's processes, ended ones too, and by this process."""
    total = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:  # ended meanwhile
            continue
        if int(stat.parent.name) == postmaster:
            total += sum(map(int, fields[11:15]))
        elif int(fields[1]) == postmaster:
            total += int(fields[11]) + int(fields[12])
    own = os.times()
    return total / TICKS + own.user + own.system


def bare(engine: db.Engine, folder: Path) -> None:
    """COPY every entity as text into tables without keys, checks or indexes; DuckDB writes CSV into a pipe, as it does for us."""
    with engine.begin() as conn:
        cursor = conn.connection.driver_connection.cursor()
        for entity in sorted(path.name for path in folder.iterdir()):
            files = f"'{folder}/{entity}/*.parquet'"
            names = [row[0] for row in duckdb.execute(f"describe from {files}").fetchall()]
            columns = ", ".join(f'"{name}" text' for name in names)
            cursor.execute(f"create table public.bare_{entity} ({columns})")
            reading, writing = os.pipe()
            made = threading.Thread(target=write_csv, args=(files, writing))
            made.start()
            with cursor.copy(f"copy public.bare_{entity} from stdin (format csv)") as copy:
                while chunk := os.read(reading, 1 << 20):
                    copy.write(chunk)
            made.join()
            os.close(reading)


def write_csv(files: str, pipe: int) -> None:
    with duckdb.connect(config={"threads": "1", "memory_limit": "1GB"}) as engine:
        engine.execute(f"copy (from {files}) to '/dev/fd/{pipe}' (format csv, header false)")
    os.close(pipe)


def more(folder: Path, share: float) -> int:
    """A second delivery: new orders of known customers, with their lines. Returns how many orders."""
    read = duckdb.connect()
    every = round(1 / share)
    for entity, key in (("orders", "order_id"), ("order_lines", "order_id")):
        read.execute(
            f"copy (select * replace (order_id || '-n' as order_id) from '{folder}/{entity}/*.parquet' "
            f"where hash({key}) % {every} = 0) to '{folder}/{entity}/part-more.parquet' (format parquet)"
        )
    return rows(f"{folder}/orders/part-more.parquet")


if __name__ == "__main__":
    main()
