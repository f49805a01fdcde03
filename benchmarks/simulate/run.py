"""How long a simulation takes: 45 days of the shipped campaigns over so many customers, and where the time goes.

    python benchmarks/simulate/run.py [--customers 100000] [--days 45] [--future no-new-orders|sampled] [--profile]

Makes a PostgreSQL of its own and fills it: one to four orders each over two years, parcels, lines, five time zones, consents. Then it
makes the copy, rewinds nothing, lives the days and reads the result, as `postlude simulate` does. Prints one table: seconds by kind of
work, CPU seconds of this process and of the server, messages. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import cProfile
import os
import pstats
import resource
import shutil
import sys
import tempfile
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table

from postlude import db, simulate

sys.path.insert(0, str(Path(__file__).parents[1]))
from shared import fill, watch

NOW = datetime(2026, 6, 1, 4, tzinfo=UTC)
SHOP = (
    "insert into sources (source_id, shop, kind, currency, time_zone, complete_until, loaded_at) "
    "values ('shop', 'Shop', 'files', 'EUR', 'Europe/Berlin', :now, :now)",
    "insert into products (source_id, sku, name, category) select 'shop', 'sku' || n, 'Item ' || n, "
    "(array['home', 'consumable', 'apparel', 'leather'])[1 + n % 4] from generate_series(0, 499) as n",
    "insert into customers (source_id, source_customer_id, email, first_name, time_zone, known_at) select 'shop', n::text, "
    "n || '@' || (array['gmail.com', 'outlook.com', 'customers.example', 'naver.com'])[1 + n % 4], 'Ana', "
    "(array['Europe/Berlin', 'America/New_York', 'Asia/Seoul', 'America/Sao_Paulo', null])[1 + n % 5], '2020-01-01' "
    "from generate_series(1, :people) as n",
    "insert into consents select customer_id, 'email', 'marketing', true, '2020-01-01', 'opt_in', '2020-01-01' from customers "
    "where customer_id % 10 <> 0",
    "insert into orders (source_id, source_order_id, customer_id, currency, placed_at, known_at, counted_at, counted_amount) "
    "select 'shop', customer_id || '-' || k, customer_id, 'EUR', at, at, at, 20 + (customer_id * 7 + k * 31) % 180 "
    "from customers, lateral (select (hashint8(customer_id) & 1048575) / 1048576.0 as u) as r, "
    "lateral generate_series(0, (customer_id % 4)::int) as k, "
    "lateral (select :now - u * interval '400 days' - k * (20 + customer_id % 90) * interval '1 day' as at) as t",
    "insert into shipments (order_id, shipment_key, shipped_at, delivered_at) "
    "select order_id, '1', placed_at + interval '1 day', placed_at + interval '4 days' from orders",
    "insert into order_lines select order_id, l::text, 'sku' || (order_id * 7 + l * 13) % 500, 'x', 1, 20 + l, placed_at "
    "from orders, generate_series(1, 2) as l",
)


def server_cpu(data: Path) -> float:
    """CPU seconds of the server and of all its processes, those that are gone included (Linux)."""
    postmaster = int((data / "postmaster.pid").read_text().splitlines()[0])
    total = 0.0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            rest = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(stat.parent.name) == postmaster:
            total += sum(map(int, rest[11:15]))
        elif int(rest[1]) == postmaster:
            total += sum(map(int, rest[11:13]))
    return total / os.sysconf("SC_CLK_TCK")


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--customers", type=int, default=100_000)
    ask.add_argument("--days", type=int, default=45)
    ask.add_argument("--future", default="no-new-orders")
    ask.add_argument("--profile", action="store_true", help="the twenty dearest calls of this process")
    ask.add_argument(
        "--statements", action="store_true", help="the thirty statement files that take longest, and how often each ran"
    )
    wanted = ask.parse_args()
    home = Path(tempfile.mkdtemp(prefix="postlude-simulate-"))
    os.environ["POSTLUDE_HOME"] = str(home)
    os.environ.setdefault("POSTLUDE_SECRET", "a-secret-for-benchmarks-only-0123456789")
    spent: Counter[str] = Counter()
    times: Counter[str] = Counter()
    if wanted.statements:
        watch(spent, times)
    server = db.start_embedded(home / "postgres", "-c shared_buffers=512MB -c max_wal_size=4GB")
    try:
        url = server.set(database="bench")
        db.create_database(url)
        db.migrate(url)
        engine = db.engine(url)
        fill(engine, SHOP, now=NOW, people=wanted.customers)
        engine.dispose()
        asked = simulate.Wanted(NOW, wanted.days, wanted.future)  # type: ignore[arg-type]
        profiler = cProfile.Profile()
        server_before = server_cpu(home / "postgres")
        began, used = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF)
        if wanted.profile:
            profiler.enable()
        story = simulate.run(url, asked)
        profiler.disable()
        wall, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
        server_used = server_cpu(home / "postgres") - server_before
    finally:
        db.stop_embedded(home / "postgres")
        shutil.rmtree(home, ignore_errors=True)
    table = Table("", "seconds", box=None, padding=(0, 2, 0, 0))
    for what, seconds in sorted(story.seconds.items(), key=lambda item: -item[1]):
        table.add_row(what, f"{seconds:,.1f}")
    table.add_row("all, with the copy and the result", f"{wall:,.1f}")
    table.add_row("CPU of this process", f"{after.ru_utime + after.ru_stime - used.ru_utime - used.ru_stime:,.1f}")
    table.add_row("CPU of the server", f"{server_used:,.1f}")
    console = Console(width=120)
    console.print(
        f"{wanted.customers:,} customers, {wanted.days} days, {wanted.future}: {story.summary['totals']}, {story.summary['passes']} passes"
    )
    console.print(table)
    if spent:
        table = Table("statement", "times", "seconds", "ms each", box=None, padding=(0, 2, 0, 0))
        for name, seconds in spent.most_common(30):
            table.add_row(name, f"{times[name]:,}", f"{seconds:,.1f}", f"{1000 * seconds / times[name]:,.1f}")
        table.add_row("all statements of files", f"{times.total():,}", f"{spent.total():,.1f}", "")
        console.print(table)
    if wanted.profile:
        pstats.Stats(profiler).sort_stats("tottime").print_stats(20)


if __name__ == "__main__":
    main()
