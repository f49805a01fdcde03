"""How good and how fast the recommendations are, on year one of UCI Online Retail II (POSTLUDE_REAL_DATA or ../shared/data).

Counts as of a day in autumn; then looks at what each customer with a history bought afterwards for the first time. Precision@10
of the recommendations beside the most popular articles (of the last 90 days, and ever), with the same articles left out: those
the customer has. Times of a count from scratch, and of one after a day with new orders. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import text

from postlude import db, intake, recommend
from postlude.settings import PROJECT
from postlude.sources import load_source

LOADED = datetime(2010, 12, 10, tzinfo=UTC)
HAS = """
create temporary table has as
select distinct o.customer_id, upper(l.sku) as sku from orders as o join order_lines as l using (order_id) where o.placed_at < :split
"""
FUTURE = """
create temporary table future as
select distinct o.customer_id, upper(l.sku) as sku
from orders as o join order_lines as l using (order_id)
where o.counted_at >= :split and o.cancelled_at is null and l.counted
  and exists (select from orders as b where b.customer_id = o.customer_id and b.counted_at < :split and b.cancelled_at is null)
  and not exists (select from has as h where h.customer_id = o.customer_id and h.sku = upper(l.sku))
"""
OURS = """
create temporary table answers as
select p.customer_id, upper(r.sku) as sku, r.reason
from (select distinct customer_id from future) as p cross join lateral recommended(p.customer_id, null, 10, :split) as r
"""
POPULAR = """
with sold as (
    select upper(l.sku) as sku, count(distinct o.order_id) as orders
    from orders as o join order_lines as l using (order_id)
    where o.counted_at < :split and o.counted_at > :since and o.cancelled_at is null and l.counted
    group by 1 order by 2 desc, 1 limit 1500
), placed as (
    select p.customer_id, s.sku, row_number() over (partition by p.customer_id order by s.orders desc, s.sku) as place
    from (select distinct customer_id from future) as p cross join sold as s
    left join has as h on h.customer_id = p.customer_id and h.sku = s.sku
    where h.sku is null
), answers as (
    select customer_id, sku from placed where place <= 10
)
"""
SCORE = """
select count(distinct a.customer_id) as people, round(count(f.sku) / (10.0 * count(distinct a.customer_id)), 5) as precision,
       round(count(distinct a.customer_id) filter (where f.sku is not null)::numeric / count(distinct a.customer_id), 5) as hit_rate
from answers as a left join future as f using (customer_id, sku)
""".replace("::numeric", " * 1.0")


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__)
    ask.add_argument("--split", default="2010-09-01")
    split = datetime.fromisoformat(ask.parse_args().split).replace(tzinfo=UTC)
    folder = Path(tempfile.mkdtemp(prefix="bench-"))
    try:
        url = db.start_embedded(folder / "data", "-c fsync=off -c shared_buffers=256MB").set(database="bench")
        db.create_database(url)
        db.migrate(url)
        measure(url, split)
    finally:
        db.stop_embedded(folder / "data")
        shutil.rmtree(folder, ignore_errors=True)


def measure(url: object, split: datetime) -> None:
    engine = db.engine(url)  # type: ignore[arg-type]
    source = load_source(PROJECT / "include" / "sources" / "online_retail.yml")
    with db.transaction(engine) as conn:
        intake.extract(conn, source, LOADED, "bench")
    with db.transaction(engine) as conn:
        intake.load(conn, source, LOADED, "bench")
    for label, moment, full in (
        ("from scratch", split - timedelta(days=1), True),
        ("a day later, in parts", split, False),
    ):
        began = time.monotonic()
        with db.transaction(engine) as conn:
            counts = recommend.count(conn, moment, "bench", full)
        print(f"{label:28} {time.monotonic() - began:6.1f} s  {counts}", flush=True)
    with db.transaction(engine) as conn:
        conn.execute(text(HAS), {"split": split})
        conn.exec_driver_sql("create index on has (customer_id, sku)")
        conn.exec_driver_sql("analyze")
        conn.execute(text(FUTURE), {"split": split})
        began = time.monotonic()
        conn.execute(text(OURS), {"split": split})
        took = time.monotonic() - began
        row = conn.execute(text(SCORE)).one()
        print(f"{'recommended':28} precision@10 {row.precision}, hit rate {row.hit_rate}, {row.people} customers, "
              f"{1000 * took / row.people:.1f} ms each")  # fmt: skip
        base = row.precision
        for reason, share in conn.execute(
            text("select reason, count(*) * 1.0 / sum(count(*)) over () from answers group by 1")
        ):
            print(f"  {reason}: {share:.1%} of the answers")
        for label, since in (
            ("most popular, 90 days", split - timedelta(days=90)),
            ("most popular, ever", datetime(1, 1, 1, tzinfo=UTC)),
        ):
            found = conn.execute(
                text(POPULAR + SCORE), {"split": split, "since": since}
            ).one()  # fmt: skip
            print(
                f"{label:28} precision@10 {found.precision}, hit rate {found.hit_rate}; ours is {base / found.precision:.2f} times that"
            )


if __name__ == "__main__":
    main()
