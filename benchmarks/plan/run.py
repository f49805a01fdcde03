"""How fast a plan is made: candidates → enrol → messages, against `insert ... select` of the same rows into bare tables.

Makes an embedded PostgreSQL of its own with as many customers as messages are wanted (orders, parcels, lines, consents), and plans
the shipped campaigns for them: the feedback request (one message for each delivered order, delay by product category) and the
win-back (four messages for each customer who lapsed). Prints one table: seconds and rows per second of every statement, ratios of
this one run. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from rich.console import Console
from rich.table import Table
from sqlalchemy import Engine, text

from postlude import coupons, db, enrolment
from postlude.calendar import load_calendar
from postlude.campaign import Campaign, load_campaign
from postlude.settings import settings

sys.path.insert(0, str(Path(__file__).parents[1]))
from shared import fill, watch

NOW = datetime(2026, 6, 1, 6, tzinfo=UTC)

# people live in several zones, a fifth of them have none on file
SHOP = (
    "insert into sources (source_id, shop, kind, currency, time_zone, complete_until) "
    "values ('shop', 'Shop', 'files', 'EUR', 'Europe/Berlin', '2026-06-01')",
    "insert into products (source_id, sku, name, category) select 'shop', 'sku' || n, 'Item ' || n, "
    "(array['home', 'consumable', 'apparel', 'leather'])[1 + n % 4] from generate_series(0, 499) as n",
    "insert into customers (source_id, source_customer_id, email, first_name, time_zone, known_at) "
    "select 'shop', n::text, n || '@customers.example', 'Ana', "
    "(array['Europe/Berlin', 'America/New_York', 'Asia/Seoul', 'America/Sao_Paulo', null])[1 + n % 5], '2020-01-01' "
    "from generate_series(1, :people) as n",
    "insert into consents select customer_id, 'email', 'marketing', true, '2020-01-01', 'opt_in', '2020-01-01' from customers",
    "insert into orders (source_id, source_order_id, customer_id, currency, placed_at, known_at, counted_at, counted_amount) "
    "select 'shop', customer_id || :tag, customer_id, 'EUR', at, at, at, 50 "
    "from customers, lateral (select :until - :spread * random() - interval '5 days' as at) as t",
    "insert into shipments (order_id, shipment_key, shipped_at, delivered_at) "
    "select order_id, '1', placed_at + interval '1 day', placed_at + interval '5 days' from orders",
    "insert into order_lines select order_id, l::text, 'sku' || (order_id * 7 + l * 13) % 500, 'x', 1, 20 + l, placed_at "
    "from orders, generate_series(1, 3) as l",
)
LAPSED = (
    "insert into segment_definitions values ('lapsed', '{}', 'bench', :now)",
    "insert into feature_state values (true, :now, 'bench', :now)",
    "insert into customer_facts select o.customer_id, 'shop', o.placed_at, o.placed_at, o.order_id, 1, 50, null, 'lapsed', "
    "o.placed_at + interval '180 days', null, null from orders as o",
    "insert into segment_memberships select 'lapsed', customer_id, :now - random() * interval '2 days', :now, null from customers",
)


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument(
        "--messages", type=int, default=1_000_000, help="so many messages per campaign (default 1,000,000)"
    )
    ask.add_argument("--only", choices=("feedback_30d", "win_back"), help="one campaign; default: both")
    ask.add_argument(
        "--folder", type=Path, help="where the database goes; default: a temporary folder, removed at the end"
    )
    wanted = ask.parse_args()
    home = wanted.folder or Path(tempfile.mkdtemp(prefix="postlude-plan-"))
    os.environ["POSTLUDE_HOME"] = str(home)
    os.environ.setdefault("POSTLUDE_SECRET", "a-secret-for-benchmarks-only-0123456789")
    server = db.start_embedded(home / "postgres", "-c shared_buffers=512MB -c max_wal_size=8GB")
    table = Table("", "rows", "seconds", "rows/s", box=None, padding=(0, 2, 0, 0))
    try:
        for name, prepare, people in (
            ("feedback_30d", feedback, wanted.messages), ("win_back", win_back, wanted.messages // 4)
        ):  # fmt: skip
            if wanted.only not in (None, name):
                continue
            url = server.set(database=f"bench_{name}")
            db.create_database(url)
            db.migrate(url)
            engine = db.engine(url)
            prepare(engine, max(people, 1))
            measure(engine, load_campaign(settings().include / "campaigns" / f"{name}.yml"), table)
            engine.dispose()
    finally:
        db.stop_embedded(home / "postgres")
        if not wanted.folder:
            shutil.rmtree(home, ignore_errors=True)
    Console(width=120).print(table)


def feedback(engine: Engine, people: int) -> None:
    """One delivered order for everybody, within the campaign's reach."""
    fill(engine, SHOP, people=people, tag="f", until=NOW, spread=timedelta(days=34))


def win_back(engine: Engine, people: int) -> None:
    """Everybody's last order lies half a year back, and they lapsed within the last two days."""
    fill(engine, SHOP, people=people, tag="w", until=NOW - timedelta(days=181), spread=timedelta(days=1))
    fill(engine, LAPSED, now=NOW)


def measure(engine: Engine, campaign: Campaign, table: Table) -> None:
    """Plan once, plan again (nothing new), then the same rows without rules, keys and checks."""
    campaign = campaign.model_copy(update={"audience": campaign.audience.model_copy(update={"holdout": 0.0})})
    calendar = load_calendar(settings().include / "calendar.yml")
    seconds: Counter[str] = Counter()

    def plan(run: str) -> float:
        start = time.perf_counter()
        with db.transaction(engine) as conn:
            enrolment.enrol(conn, campaign, NOW, run)
            enrolment.schedule(conn, campaign, calendar, NOW, run)
            coupons.reserve(conn, campaign, NOW)
        with db.transaction(engine) as conn:
            enrolment.release(conn, campaign)
        return time.perf_counter() - start

    watch(seconds, Counter())
    first = plan("bench/1")
    parts = dict(seconds)
    second = plan("bench/2")

    def count(query: str) -> int:
        with db.transaction(engine) as conn:
            return int(conn.execute(text(query)).scalar_one())

    def bare(made: Callable[[str], str]) -> float:
        start = time.perf_counter()
        for name in ("enrolments", "messages"):
            with db.transaction(engine) as conn:
                conn.execute(text(made(name)))
                conn.execute(text(f"insert into bare_{name} select * from {name}"))
                if name == "messages":
                    conn.execute(text("drop table bare_enrolments, bare_messages"))
        return time.perf_counter() - start

    messages, enrolled = count("select count(*) from messages"), count("select count(*) from enrolments")
    plain = bare(lambda name: f"create table bare_{name} (like {name})")
    keyed = bare(lambda name: f"create table bare_{name} (like {name} including all)")
    table.add_row(f"[b]{campaign.id}", "", "", "")

    def row(what: str, rows: int, took: float) -> None:
        table.add_row(f"  {what}", f"{rows:,}", f"{took:.1f}", f"{rows / took:,.0f}")

    for name, took in parts.items():
        if took >= 0.05:
            row(name, messages if name.startswith(("33", "34", "48")) else enrolled, took)
    row("the whole plan, with commit", messages, first)
    row("planned again: nothing new", messages, second)
    row("insert ... select of the same rows, bare", messages + enrolled, plain)
    row("insert ... select, with keys, indexes and checks", messages + enrolled, keyed)
    table.add_row("  plan / bare insert", "", f"{first / plain:.1f}", "")
    table.add_row("  plan / insert with keys", "", f"{first / keyed:.1f}", "")


if __name__ == "__main__":
    main()
