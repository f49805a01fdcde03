"""How long each page of the Airflow UI waits for its data, in a large shop; the promise is 300 ms.

    python benchmarks/pages/run.py [CUSTOMERS] [MESSAGES]     # default 100,000 and 1,000,000

Starts a PostgreSQL of its own (fsync off, as in the tests). Rows are made by generate_series: a year of messages of three
campaigns, events, orders; features and segments by the real stage. Each route is asked once and then fifteen times through
the app, without Airflow's login (which costs a few ms more). The processor's time is told beside the clock's: it is the same on
a busy machine.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from math import ceil
from pathlib import Path
from statistics import mean, median
from typing import Any

from fastapi.routing import APIRoute
from fastapi.testclient import TestClient
from sqlalchemy import Engine, text

from postlude import audience, db, tallies
from postlude.pages import PAGES
from postlude.pages.app import Deps, make
from postlude.settings import settings

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
TIMES = 15
CAMPAIGNS = ("win_back", "feedback_30d", "loyalty_join")
ROWS = (
    "insert into sources (source_id, shop, kind, currency, time_zone, complete_until) values ('shop', 'Shop', 'files', 'EUR', 'UTC', :now)",
    "insert into customers (source_id, source_customer_id, email, first_name, last_name, country, known_at) "
    "select 'shop', 'k' || n, 'c' || n || '@customers.example', 'Bo', 'Lee', 'DE', :now - interval '1 year' "
    "from generate_series(1, :people) n",
    "insert into customer_identities select source_id, source_customer_id, customer_id from customers",
    "insert into consents select customer_id, 'email', 'marketing', true, known_at, 'opt_in', known_at from customers",
    "insert into orders (source_id, source_order_id, customer_id, currency, placed_at, known_at, counted_at, counted_amount) "
    "select 'shop', 'o' || c.customer_id || '.' || n, c.customer_id, 'EUR', t.at, t.at, t.at, 20 + c.customer_id % 90 "
    "from customers c, generate_series(1, 2) n, "
    "lateral (select :now - make_interval(hours => 1 + (c.customer_id * 37 * n % 8700)::int)) t(at)",
    "insert into shipments (order_id, shipment_key, shipped_at, delivered_at) select order_id, 'p', placed_at + interval '1 day', "
    "placed_at + interval '3 days' from orders where placed_at < :now - interval '3 days'",
    # :each passages for every customer, spread over campaigns and the year; one in ten is under way
    "insert into enrolments (enrolment_id, campaign_id, version, customer_id, anchor_key, anchor_at, watch_from, arm, enrolled_at, "
    "exited_at, exit_reason, run_id) select gen_random_uuid(), (cast(:campaigns as text[]))[1 + k % 3], 'v', "
    "c.customer_id, n::text, t.at, t.at, "
    "case when k % 20 = 7 then 'holdout' else 'treated' end, t.at, case when k % 10 > 0 then least(t.at + interval '25 days', :now) end, "
    "case when k % 10 > 0 then (array['completed', 'goal_met', 'left_audience'])[1 + k % 3] end, 'b' "
    "from customers c, generate_series(1, :each) n, lateral (select (c.customer_id * 7 + n * 13)::int) h(k), "
    "lateral (select :now - make_interval(hours => case when k % 10 = 0 then k % 500 else 24 + k % 8700 end)) t(at)",
    # four messages each: of the past, and one that waits where the passage is under way
    "insert into messages (message_id, enrolment_id, campaign_id, step_id, customer_id, kind, template, state, reason, due_at, send_at, "
    "expires_at, planned_at, run_id, handed_over_at, finalized_at) select gen_random_uuid(), e.enrolment_id, e.campaign_id, 'step_' || n, "
    "e.customer_id, 'marketing', 'win_back/miss_you', s.state, s.reason, t.at, t.at, t.at + interval '3 days', e.enrolled_at, 'b', "
    "case when s.state = 'sent' then t.at end, case when s.state <> 'scheduled' then t.at end "
    "from enrolments e, generate_series(1, 4) n, lateral (select e.enrolled_at + make_interval(days => 6 * n)) t(at), "
    "lateral (select case when t.at > :now then 'scheduled' when (n + e.customer_id) % 12 = 0 then 'skipped' else 'sent' end, "
    "case when t.at <= :now and (n + e.customer_id) % 12 = 0 then 'no_consent' end) s(state, reason)",
    "insert into events (event_id, message_id, customer_id, kind, at, known_at, source) "
    "select gen_random_uuid(), m.message_id, m.customer_id, (array['opened', 'clicked', 'delivered'])[1 + m.customer_id % 3], "
    "m.handed_over_at, m.handed_over_at + interval '1 hour', 'b' from messages m where m.state = 'sent' and m.customer_id % 2 = 0",
    "insert into refusals select (cast(:campaigns as text[]))[1 + customer_id % 3], customer_id, 'x', 'no_consent', known_at, :now, 'b' "
    "from customers",
    "insert into segment_sizes select d.segment_id, t, 1000, 10, 12 from segment_definitions d, "
    "generate_series(:now - interval '120 days', :now - interval '1 hour', interval '1 hour') t",
)  # fmt: skip


BIG = ("orders", "shipments", "enrolments", "messages", "events")


@contextmanager
def without_indexes(engine: Engine) -> Iterator[None]:
    """The big tables without those indexes that no key rests on: made afterwards, they cost a third."""
    wanted = text("""select i.indexrelid::regclass::text as name, pg_get_indexdef(i.indexrelid) as made from pg_index i
                     where i.indrelid = any(cast(:big as regclass[])) and not i.indisunique
                     and not exists (select 1 from pg_constraint c where c.conindid = i.indexrelid)""")
    with db.transaction(engine) as conn:
        found = conn.execute(wanted, {"big": list(BIG)}).all()
        for index in found:
            conn.exec_driver_sql(f"drop index {index.name}")
    yield
    began = time.perf_counter()
    with db.transaction(engine) as conn:
        conn.exec_driver_sql("set local maintenance_work_mem = '1GB'")
        for index in found:
            conn.exec_driver_sql(index.made)
    print(f"  {len(found)} indexes{'':<10} {time.perf_counter() - began:6.1f} s", flush=True)


def fill(engine: Engine, people: int, messages: int) -> None:
    with without_indexes(engine):
        rows(engine, people, messages, ROWS[:-1])
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        conn.exec_driver_sql("vacuum analyze")
    rows(engine, people, messages, ROWS[-1:])
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
        conn.exec_driver_sql("vacuum analyze")


def rows(engine: Engine, people: int, messages: int, statements: tuple[str, ...]) -> None:
    """Execute these of ROWS, each in its transaction; before the last of them all features and segments are derived."""
    values: dict[str, Any] = {
        "now": NOW,
        "people": people,
        "each": max(1, ceil(messages / people / 4)),
        "campaigns": list(CAMPAIGNS),
    }
    for statement in statements:
        began = time.perf_counter()
        with db.transaction(engine) as conn:
            conn.exec_driver_sql("set local session_replication_role = replica")  # no foreign keys, no triggers
            if statement is ROWS[-1]:
                conn.exec_driver_sql("set local session_replication_role = origin")
                audience.derive_features(conn, NOW, "bench", full=True)
                audience.update_segments(conn, audience.load_segments(settings().include / "segments"), NOW, "bench")
            conn.execute(text(statement), {key: value for key, value in values.items() if f":{key}" in statement})
        print(f"  {' '.join(statement.split()[2:3]):<20} {time.perf_counter() - began:6.1f} s", flush=True)


def main() -> None:
    people = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    messages = int(sys.argv[2]) if len(sys.argv) > 2 else 1_000_000
    home = Path(tempfile.mkdtemp(prefix="bench-"))
    url = db.start_embedded(home / "data", "-c fsync=off -c full_page_writes=off -c shared_buffers=512MB").set(
        database="pages"
    )
    try:
        db.create_database(url)
        db.migrate(url)
        engine = db.engine(url)
        fill(engine, people, messages)
        with db.transaction(engine) as conn:
            rows = {
                name: conn.scalar(text(f"select count(*) from {name}"))
                for name in ("customers", "messages", "events", "tallies")
            }
            began = time.perf_counter()
            tallies.refresh(conn, NOW)
            full = time.perf_counter() - began
        with db.transaction(engine) as conn:
            began = time.perf_counter()
            tallies.refresh(conn, NOW)
            again = time.perf_counter() - began
            rows["tallies"] = conn.scalar(text("select count(*) from tallies"))
        print(", ".join(f"{count:,} {name}" for name, count in rows.items()))
        print(f"counting everything {full:.1f} s, once a day; what is new {again:.2f} s, every ten minutes")
        measure(engine, home, people)
    finally:
        db.stop_embedded(home / "data")


def measure(engine: Engine, home: Path, people: int) -> None:
    def somebody() -> str:
        return "bench"

    app = make(
        Deps(see=lambda: None, steering=somebody, knowing=somebody, engine=lambda: engine, clock=lambda: NOW, home=home)
    )
    client = TestClient(app)
    one = people // 2
    look = {"campaign": "win_back", "step": "miss_you"}
    asked: list[tuple[str, Any]] = [
        ("api/calendar?first=2026-05-25&last=2026-07-05", None),
        ("api/calendar?first=2026-06-01&last=2026-06-07", None),
        ("api/calendar?first=2026-06-01&last=2026-07-15", None),
        ("api/calendar/history", None),
        *((page, None) for page in PAGES),
        *((f"static/{name}", None) for name in ("page.css", "page.js", "calendar.js")),
        ("mail-frame", None),
        ("report", None),
        ("docs/", None),
        ("api/campaigns", None),
        ("api/campaign/list", None),
        ("api/campaign/story", {"campaign": "win_back"}),
        ("api/campaign/audience", {"campaign": "win_back"}),
        ("api/campaign/preview", look | {"person": "ana"}),
        ("api/campaign/preview", look | {"customer": one}),
        ("api/segments", None),
        ("api/segment/days", {"segment": "lapsed"}),
        ("api/segment/sample", {"segment": "active"}),
        ("api/segment/overlap", {"one": "active", "other": "loyalty_eligible"}),
        ("api/segment/overlap", {"one": "lapsed", "other": "active"}),
        ("api/approvals", None),
        ("api/customer/find", {"customer": f"c{one}@customers.example"}),
        ("api/customer/find", {"customer": f"k{one}"}),
        ("api/customer/story", {"customer": one}),
        ("api/customer/why", {"customer": str(one), "campaign": "win_back"}),
        ("api/why", {"customer": f"k{one}"}),
        ("api/customer/export", {"customer": one}),
        ("api/customer/may", None),
        ("api/wizard", None),
        ("api/stops", None),
    ]
    left_out = {
        route
        for route in _gets(app.routes)
        if route.strip("/").split("?")[0] not in {path.split("?")[0] for path, _ in asked}
    }
    worst = 0.0
    print(f"{'ms, median':>10} {'least':>6} {'most':>6} {'processor':>9}")
    for path, body in asked:
        took, busy = [], []
        for _ in range(1 + TIMES):
            began, worked = time.perf_counter(), _processor(engine)
            reply = (
                client.get(f"/{path}")
                if body is None
                else client.post(f"/{path}", json=body, headers={"sec-fetch-site": "same-origin"})
            )
            took.append((time.perf_counter() - began) * 1000)
            busy.append((_processor(engine) - worked) * 1000)
            assert reply.status_code == 200, (path, reply.text)
        first, rest = took[0], took[1:]
        worst = max(worst, median(rest))
        print(
            f"{median(rest):10.0f} {min(rest):6.0f} {max(rest):6.0f} {mean(busy[1:]):9.0f}  {path} {'' if body is None else body}"
            f"{f'  (the first time {first:.0f})' if first > 2 * median(rest) + 20 else ''}",
            flush=True,
        )
    print(f"slowest median: {worst:.0f} ms; not asked: {', '.join(sorted(left_out)) or 'none'}")


def _processor(engine: Engine) -> float:
    """Seconds of processor this process and its servers have used: what it costs, however busy the machine is."""
    with engine.connect() as conn:
        pid = conn.scalar(text("select pg_backend_pid()"))
    ticks = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return time.process_time() + sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK")


def _gets(routes: Any) -> Iterator[str]:
    """Every GET route there is, routers inside routers too."""
    for route in routes:
        if isinstance(route, APIRoute):
            yield from [route.path] if "GET" in route.methods else []
        else:
            yield from _gets(getattr(route, "routes", None) or route.original_router.routes)


if __name__ == "__main__":
    main()
