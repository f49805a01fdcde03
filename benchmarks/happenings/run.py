"""How long the happenings of a large shop take: recovery, gifts, loyalty, and every event that is worked out; at first, and a day later.

Makes customers with five orders each over three years, parcels, answers, returns, checkouts, visits, watched products and mail that
went out, in an embedded PostgreSQL of its own. Prints rows, seconds by statement, and ratios to reading the orders once; with
`--plans` also what the plans of all campaigns take that night, marketing and transactional, and once more. Nothing is asserted.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

from sqlalchemy import Engine, text

from postlude import audience, db, enrolment, loyalty
from postlude.calendar import load_calendar
from postlude.campaign import load_campaign
from postlude.loyalty_rules import load_loyalty
from postlude.pipeline.customers import happen
from postlude.settings import settings

sys.path.insert(0, str(Path(__file__).parents[1]))
from shared import fill, watch

NOW = datetime(2026, 4, 2, 6, tzinfo=UTC)
LARGE = 0.5  # what takes longer than so many seconds is printed by itself
SHOP = (
    "select setseed(0.42)",
    "insert into sources (source_id, shop, kind, currency, time_zone, complete_until) "
    "values ('shop', 'Shop', 'files', 'EUR', 'Europe/Berlin', :now)",
    "insert into products (source_id, sku, name, category, price, in_stock) select 'shop', 'sku' || n, 'Item number ' || n, "
    "case n % 10 when 0 then 'consumable' else 'home' end, 5 + n % 400, true from generate_series(0, 1999) as n",
    "insert into product_changes (source_id, sku, at, known_at, what, was, now) select 'shop', 'sku' || n, at, at, what, was, worth "
    "from generate_series(0, 39) as n, lateral (select cast(:now as timestamptz) - n * interval '12 hours' as at) as t, "
    "(values ('back', null, 50), ('price', 10000, 5 + 400)) as v (what, was, worth)",
    "update products as p set price = c.now from product_changes as c where c.what = 'price' and p.sku = c.sku",
    "insert into customers (source_id, source_customer_id, email, known_at) "
    "select 'shop', n, 'c' || n || '@customers.example', cast(:now as timestamptz) - interval '3 years' "
    "from generate_series(1, :people) as n",
    "insert into consents select customer_id, 'email', 'marketing', true, known_at, 'opt_in', known_at from customers",
    "insert into orders (source_id, source_order_id, customer_id, currency, placed_at, paid_at, promised_on, known_at, counted_at, "
    "counted_amount) select source_id, customer_id || '-' || nth, customer_id, 'EUR', at, at, cast(at as date) + 5, at, at, 60 from ("
    "  select *, first + nth * 120 * (0.5 + random()) * interval '1 day' as at"
    "  from (select *, cast(:now as timestamptz) - 1100 * random() * interval '1 day' as first from customers offset 0) as c,"
    "    generate_series(0, 4) as nth) as o where at < :now",
    "insert into order_lines select order_id, l::text, 'sku' || (order_id * 7 + l * 13) % 2000, 'x', 1, 30, placed_at "
    "from orders, generate_series(1, 2) as l",
    "insert into shipments select order_id, '1', 'DHL', null, placed_at + interval '1 day', cast(placed_at as date) + 4, "
    "case when order_id % 50 > 0 and placed_at < cast(:now as timestamptz) - interval '4 days' then placed_at + interval '4 days' end "
    "from orders",
    "insert into returns (order_id, return_key, sku, requested_at, received_at, refunded_at, closed_at) "
    "select order_id, '1', null, placed_at + interval '9 days', placed_at + interval '12 days', r.at, r.at from orders, "
    "lateral (select case when order_id % 2000 > 0 then placed_at + interval '15 days' end as at) as r "
    "where order_id % 40 = 0 and placed_at < cast(:now as timestamptz) - interval '15 days'",
    "insert into reviews (order_id, review_key, score, created_at) select order_id, '1', 1 + order_id % 5, placed_at + interval '10 days' "
    "from orders where order_id % 20 = 1 and placed_at < cast(:now as timestamptz) - interval '10 days'",
    "insert into external_events (source_id, event_key, customer_id, kind, at, known_at, detail) "
    "select 'shop', kind || customer_id, customer_id, kind, at, at, detail from customers, lateral (values "
    "('visited', 1, 200, cast('{}' as jsonb)), ('loyalty_joined', 10, 700, '{\"club\": \"free\"}'), "
    "('checkout_started', 5, 60, jsonb_build_object('cart', customer_id::text, 'items', "
    "  jsonb_build_array(jsonb_build_object('sku', 'sku' || customer_id % 2000, 'quantity', 1)))), "
    "('product_watched', 10, 300, jsonb_build_object('sku', 'sku' || customer_id % 200))) as k (kind, every, days, detail), "
    "lateral (select cast(:now as timestamptz) - customer_id * 7919 % (days * 86400) * interval '1 second' as at) as t "
    "where customer_id % every = 0",
    "insert into campaign_versions values ('c', '1', '{}', :now)",
    "insert into enrolments (enrolment_id, campaign_id, version, customer_id, anchor_key, anchor_at, watch_from, enrolled_at, exited_at, "
    "exit_reason, run_id) select uuid_of('e', customer_id::text), 'c', '1', customer_id, '1', known_at, known_at, known_at, :now, "
    "'completed', 'b' from customers",
    "insert into messages (message_id, enrolment_id, campaign_id, step_id, customer_id, kind, template, state, due_at, send_at, "
    "expires_at, handed_over_at, finalized_at, planned_at, run_id, calendar_revision) "
    "select uuid_of('m', customer_id::text || n), uuid_of('e', customer_id::text), 'c', 's' || n, customer_id, 'marketing', 't', 'sent', "
    "at, at, at + interval '1 day', at, at, at, 'b', null from customers, generate_series(1, 2) as n, "
    "lateral (select cast(:now as timestamptz) - customer_id * n * 104729 % (250 * 86400) * interval '1 second' as at) as t",
    "insert into events (event_id, message_id, customer_id, kind, at, known_at, source) select uuid_of('v', message_id::text), message_id, "
    "customer_id, 'clicked', handed_over_at + interval '1 hour', handed_over_at + interval '1 hour', 'test' from messages "
    "where customer_id % 10 = 3 and handed_over_at < cast(:now as timestamptz) - interval '1 hour'",
)  # fmt: skip
DAY = (
    # one in a hundred orders today, and one in a hundred comes by
    "insert into orders (source_id, source_order_id, customer_id, currency, placed_at, paid_at, promised_on, known_at, counted_at, "
    "counted_amount) select source_id, customer_id || '-new', customer_id, 'EUR', at, at, cast(at as date) + 5, at, at, 60 from customers, "
    "lateral (select cast(:now as timestamptz) - customer_id % 86000 * interval '1 second' as at) as t where customer_id % 100 = 7",
    "insert into order_lines select order_id, '1', 'sku' || order_id % 2000, 'x', 1, 30, placed_at from orders "
    "where source_order_id like '%-new'",
    "insert into external_events (source_id, event_key, customer_id, kind, at, known_at) "
    "select 'shop', 'again' || customer_id, customer_id, 'visited', :now, :now from customers where customer_id % 100 = 8",
)


def main() -> None:
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--customers", type=int, default=100_000, help="with five orders each (default 100,000)")
    ask.add_argument("--plans", action="store_true", help="also plan all campaigns, twice")
    ask.add_argument("--folder", type=Path, help="where the database goes; default: temporary, removed at the end")
    wanted = ask.parse_args()
    home = wanted.folder or Path(tempfile.mkdtemp(prefix="postlude-happenings-"))
    url = db.start_embedded(home / "postgres", "-c shared_buffers=1GB -c max_wal_size=4GB -c synchronous_commit=off")
    try:
        measure(url.set(database="bench"), wanted.customers, wanted.plans)
    finally:
        db.stop_embedded(home / "postgres")
        if not wanted.folder:
            shutil.rmtree(home, ignore_errors=True)


def measure(url: db.URL, people: int, plans: bool) -> None:
    db.create_database(url)
    db.migrate(url)
    engine = db.engine(url)
    began = time.perf_counter()
    fill(engine, SHOP, now=NOW, people=people)
    print(f"the shop is made: {time.perf_counter() - began:.0f} s", flush=True)
    seconds: Counter[str] = Counter()
    watch(seconds, Counter())
    later = NOW + timedelta(days=1)
    for words, now, run in (("first", NOW, 1), ("the same again", NOW, 2), ("a day later", later, 3)):
        if now == later:
            fill(engine, DAY, now=now, people=people)
        with db.transaction(engine) as conn:
            audience.derive_features(conn, now, "bench")
        with db.transaction(engine) as conn:
            start = time.perf_counter()
            conn.execute(text("select count(*), sum(counted_amount) from orders"))
            reading = time.perf_counter() - start
        seconds.clear()
        start = time.perf_counter()
        found = night(engine, now, f"bench/{run}")
        whole = time.perf_counter() - start
        events = {name: count for name, count in found.items() if count}
        print(f"\n{words}: {whole:.1f} s, {whole / reading:.1f} times reading the orders once\n  {events}")
        print_dear(seconds)
    for kind in ("marketing", "transactional") if plans else ():
        for words in ("first", "again"):
            seconds.clear()
            start = time.perf_counter()
            count = plan(engine, kind, later, f"bench/{words}")
            print(f"\nall {kind} campaigns, {words}: {time.perf_counter() - start:.1f} s, {count:,} messages planned")
            print_dear(seconds)


def print_dear(seconds: Counter[str]) -> None:
    for name, took in seconds.most_common():
        if took > LARGE:
            print(f"  {name:32}{took:8.1f} s")


def plan(engine: Engine, kind: str, now: datetime, run: str) -> int:
    """Enrol and schedule, campaign by campaign, without the checks of the plan; messages planned."""
    calendar, planned = load_calendar(settings().include / "calendar.yml"), 0
    for file in sorted((settings().include / "campaigns").glob("*.yml")):
        campaign = load_campaign(file)
        if campaign.kind == kind:
            with db.transaction(engine) as conn:
                enrolment.enrol(conn, campaign, now, run, calendar=calendar)
                planned += enrolment.schedule(conn, campaign, calendar, now, run)["planned"]
    return planned


def night(engine: Engine, now: datetime, run: str) -> dict[str, int]:
    """What the segment DAG does about it: the tasks keep_loyalty and note_happenings."""
    rules = load_loyalty()
    assert rules
    with db.transaction(engine) as conn:
        found: dict[str, int] = dict(loyalty.update(conn, rules, now, run))
    with db.transaction(engine) as conn:
        return found | happen(conn, now)


if __name__ == "__main__":
    main()
