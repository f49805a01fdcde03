"""How fast features and segments are made: from scratch beside DuckDB over the same data, and after a day with 1 % touched.

Makes customers with ten orders each in an embedded PostgreSQL of its own. Prints wall seconds, CPU seconds (of all server
processes and of this one) and ratios of this one run. Nothing is asserted. DuckDB reads the orders through ADBC where
adbc-driver-postgresql and pyarrow are installed, else through COPY as CSV.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import duckdb
from sqlalchemy import text

from postlude import audience, db
from postlude.settings import settings

NOW = datetime(2026, 4, 2, 6, tzinfo=UTC)
TICKS = os.sysconf("SC_CLK_TCK")
SHOPS = 2
DATA = (
    "select setseed(0.42)",
    "insert into sources (source_id, shop, kind, currency, time_zone) "
    "select 'shop' || n, 'Shop', 'files', 'EUR', 'UTC' from generate_series(0, :shops - 1) as n",
    "insert into customers (source_id, source_customer_id, known_at) "
    "select 'shop' || n % :shops, n, :now from generate_series(1, :customers) as n",
    # a first order within three years, then gaps of about 50 days; one in forty is cancelled
    "insert into orders (source_id, source_order_id, customer_id, currency, placed_at, known_at, counted_at, counted_amount, "
    "cancelled_at) select source_id, gen_random_uuid(), customer_id, 'EUR', at, at, at, amount, gone from ("
    "  select *, first + nth * 50 * (0.5 + random()) * interval '1 day' as at, round(cast(5 + 95 * random() as numeric), 2) as amount,"
    "    case when random() < 0.025 then first + nth * interval '50 days' end as gone"
    "  from (select *, cast(:now as timestamptz) - 1100 * random() * interval '1 day' as first from customers offset 0) as c,"
    "    generate_series(0, 9) as nth) as o",
    "analyze customers, orders",
)
DAY = (
    # 1 % of the customers order today
    "insert into orders (source_id, source_order_id, customer_id, currency, placed_at, known_at, counted_at, counted_amount) "
    "select source_id, gen_random_uuid(), customer_id, 'EUR', at, at, at, 20 from ("
    "  select *, cast(:now as timestamptz) - random() * interval '1 day' as at from customers where customer_id % 100 = :nth) as c"
)
COUNTED = (
    "select o.customer_id, c.source_id, o.order_id, o.counted_at, o.counted_amount from postlude.orders as o "
    "join postlude.customers as c using (customer_id) where o.counted_at < '{now}' "
    "and (o.cancelled_at is null or o.cancelled_at > '{now}')"
)
PEER = """
create or replace table features as
with passage as (
    select *, row_number() over w as nth, sum(counted_amount) over w as spent,
        date_diff('microseconds', lag(counted_at) over w, counted_at) / 1e6 as gap
    from orders
    window w as (partition by customer_id order by counted_at, order_id rows unbounded preceding)
),
facts as (
    select customer_id, any_value(source_id) as source_id, min(counted_at) as first_at, max(counted_at) as last_at,
        count(*) as frequency, sum(counted_amount) as monetary, median(gap) / 86400 as median_gap_days,
        max(counted_at) filter (gap >= 86400 * 90) as returned_at, max(counted_at) filter (nth = 2) as second_at,
        min(counted_at) filter (nth >= 3 or spent >= 300) as loyal_since
    from passage group by customer_id
),
staged as (
    select *, cast(floor(date_diff('microseconds', last_at, cast('{now}' as timestamptz)) / 86400e6) as int) as recency_days,
        case when last_at > cast('{now}' as timestamptz) - interval 720 hour and frequency = 1 then 'new'
            when last_at > cast('{now}' as timestamptz) - interval 2160 hour then 'active'
            when last_at > cast('{now}' as timestamptz) - interval 4320 hour then 'at_risk' else 'lapsed' end as stage
    from facts
)
select *, ntile(5) over (partition by source_id order by recency_days desc, customer_id) as r_score,
    ntile(5) over (partition by source_id order by frequency, customer_id) as f_score,
    ntile(5) over (partition by source_id order by monetary, customer_id) as m_score
from staged"""
ANSWER = (
    "select count(*), sum(frequency), sum(monetary), sum(recency_days), count(*) filter (where stage = 'lapsed'), "
    "sum(r_score * (customer_id % 97)), sum(f_score * (customer_id % 97)), sum(m_score * (customer_id % 97)) from {table}"
)


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--customers", type=int, default=200_000, help="with ten orders each (default 200,000)")
    ask.add_argument("--rounds", type=int, default=3, help="days with 1 %% touched; the median counts (default 3)")
    ask.add_argument("--folder", type=Path, help="where the database goes; default: temporary, removed at the end")
    wanted = ask.parse_args()
    home = wanted.folder or Path(tempfile.mkdtemp(prefix="postlude-segment-"))
    url = db.start_embedded(home / "postgres", "-c shared_buffers=512MB -c max_wal_size=4GB -c synchronous_commit=off")
    try:
        measure(home, url.set(database="bench"), wanted.customers, wanted.rounds)
    finally:
        db.stop_embedded(home / "postgres")
        shutil.rmtree(home, ignore_errors=True)


def measure(home: Path, url: db.URL, customers: int, rounds: int) -> None:
    db.create_database(url)
    db.migrate(url)
    engine = db.engine(url)
    postmaster = int((home / "postgres" / "postmaster.pid").read_text().splitlines()[0])
    segments = audience.load_segments(settings().include / "segments")
    took: dict[str, list[tuple[float, float]]] = {}

    @contextmanager
    def timed(what: str) -> Iterator[None]:
        start, used = time.perf_counter(), cpu(postmaster)
        yield
        took.setdefault(what, []).append((time.perf_counter() - start, cpu(postmaster) - used))
        print(f"{what:48}{took[what][-1][0]:9.2f} s  CPU {took[what][-1][1]:8.2f} s", flush=True)

    def both(what: str, now: datetime, full: bool) -> None:
        with db.transaction(engine) as conn:
            if full:
                conn.execute(text("update feature_state set segments = null"))
            with timed(f"{what}: features"):
                audience.derive_features(conn, now, "bench", full=full)
            with timed(f"{what}: segments"):
                audience.update_segments(conn, segments, now, "bench")

    with timed("make the orders"), db.transaction(engine) as conn:
        for statement in DATA:
            named = {"now": NOW, "customers": customers, "shops": SHOPS}
            conn.execute(text(statement), {k: v for k, v in named.items() if f":{k}" in statement})
    settle(engine)
    both("first", NOW, full=True)
    settle(engine)
    for nth in range(1, rounds + 1):
        now = NOW + nth * timedelta(days=1)
        with timed("a day: load 1 %"), db.transaction(engine) as conn:
            conn.execute(text(DAY), {"now": now, "nth": nth})
        both("a day", now, full=False)
        both("from scratch", now, full=True)
        with timed("DuckDB"):
            theirs = peer(url, now)
        settle(engine)
    with db.transaction(engine) as conn:
        ours = conn.execute(text(ANSWER.format(table="customer_features"))).one()
    print(
        f"DuckDB {duckdb.__version__} gives the same figures: {[float(a) for a in ours] == [float(b) for b in theirs]}"
    )

    def middle(*parts: str) -> list[float]:
        each = zip(*(took[part] for part in parts), strict=True)
        totals = [[sum(part[k] for part in one) for k in (0, 1)] for one in each]
        return [sorted(t[k] for t in totals)[len(totals) // 2] for k in (0, 1)]

    for words, above, below in (
        ("features from scratch / DuckDB", ["from scratch: features"], ["DuckDB"]),
        ("features after a day / from scratch", ["a day: features"], ["from scratch: features"]),
        ("segments after a day / from scratch", ["a day: segments"], ["from scratch: segments"]),
        ("both after a day / from scratch", ["a day: features", "a day: segments"],
         ["from scratch: features", "from scratch: segments"]),
    ):  # fmt: skip
        wall, busy = (a / b for a, b in zip(middle(*above), middle(*below), strict=True))
        print(f"{words:48} wall {wall:6.3f}   CPU {busy:6.3f}")


def settle(engine: db.Engine) -> None:
    """What autovacuum and the checkpointer do in quiet times."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        conn.execute(text("vacuum (analyze)"))
        conn.execute(text("checkpoint"))


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


def peer(url: db.URL, now: datetime) -> tuple[float, ...]:
    """The same facts by DuckDB from the same tables; its table of answers stays in its memory."""
    query, moment = COUNTED.format(now=now.isoformat()), now.isoformat()
    with duckdb.connect(config={"threads": str(os.cpu_count())}) as engine:
        engine.execute("set TimeZone = 'UTC'")
        try:
            from adbc_driver_postgresql import dbapi

            with (
                dbapi.connect(f"postgresql:///{url.database}?host={url.query['host']}&user=postgres") as conn,
                conn.cursor() as cursor,
            ):
                cursor.execute(query)
                rows = cursor.fetch_record_batch()
                engine.register("delivered", rows)
                engine.execute(
                    "create table orders as select * replace (cast(counted_amount as decimal(18, 2)) as counted_amount) from delivered"
                )
        except ImportError:
            through_csv(url, query, engine)
        engine.execute(PEER.format(now=moment))
        return engine.execute(ANSWER.format(table="features")).fetchone() or ()


def through_csv(url: db.URL, query: str, into: duckdb.DuckDBPyConnection) -> None:
    reading, writing = os.pipe()

    def produce() -> None:
        with db.engine(url).connect() as conn, os.fdopen(writing, "wb") as pipe:
            raw = conn.connection.driver_connection
            assert raw is not None
            with raw.cursor() as cursor, cursor.copy(f"copy ({query}) to stdout (format csv)") as copy:
                pipe.writelines(copy)

    made = threading.Thread(target=produce)
    made.start()
    into.execute(
        "create table orders as select * from read_csv($1, header = false, columns = {'customer_id': 'bigint', "
        "'source_id': 'varchar', 'order_id': 'bigint', 'counted_at': 'timestamptz', 'counted_amount': 'decimal(18, 2)'})",
        [f"/dev/fd/{reading}"],
    )
    made.join()
    os.close(reading)


if __name__ == "__main__":
    main()
