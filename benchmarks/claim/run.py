"""What the last look costs: claims per second for due messages, judged and not handed over.

    python benchmarks/claim/run.py [MESSAGES] [PER_CUSTOMER]

Starts a PostgreSQL of its own (fsync off, as in the tests), plans nothing: rows are made by generate_series.
"""

from __future__ import annotations

import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import text

from postlude import db, outbox
from postlude.calendar import load_calendar
from postlude.campaign import load_campaign
from postlude.settings import settings

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
ROWS = (
    "insert into sources (source_id, shop, kind, currency, time_zone, complete_until) values ('shop', 'Shop', 'files', 'EUR', 'UTC', :now)",
    "insert into customers (source_id, source_customer_id, email, first_name, country, known_at) "
    "select 'shop', n, 'c' || n || '@customers.example', 'Bo', 'DE', :now - interval '1 year' from generate_series(1, :people) n",
    "insert into consents select customer_id, 'email', 'marketing', true, known_at, 'opt_in', known_at from customers",
    "insert into campaign_versions values (:campaign, :version, cast(:definition as jsonb), :now)",
    "insert into enrolments (enrolment_id, campaign_id, version, customer_id, anchor_key, anchor_at, watch_from, enrolled_at, run_id) "
    "select uuid_of('e', c.customer_id::text, n::text), :campaign, :version, c.customer_id, n, :now - interval '1 day', "
    ":now - interval '1 day', :now, 'b' from customers c, generate_series(1, :each) n",
    "insert into messages (message_id, enrolment_id, campaign_id, step_id, customer_id, kind, template, due_at, send_at, expires_at, "
    "planned_at, run_id) select uuid_of('m', e.enrolment_id::text), e.enrolment_id, :campaign, 'miss_you', e.customer_id, 'marketing', "
    "'win_back/miss_you', :now - interval '1 hour', :now - interval '1 hour', :now + interval '3 days', :now, 'b' from enrolments e",
    # a past for every second customer: two messages sent this week
    "insert into enrolments (enrolment_id, campaign_id, version, customer_id, anchor_key, anchor_at, watch_from, enrolled_at, run_id) "
    "select uuid_of('p', c.customer_id::text, n::text), :campaign, :version, c.customer_id, 'p' || n, :now - interval '1 day', "
    ":now - interval '1 day', :now, 'b' from customers c, generate_series(1, 2) n where c.customer_id % 2 = 0",
    "insert into messages (message_id, enrolment_id, campaign_id, step_id, customer_id, kind, template, state, due_at, send_at, "
    "expires_at, planned_at, run_id, handed_over_at, finalized_at) "
    "select uuid_of('m', e.enrolment_id::text), e.enrolment_id, :campaign, 'whats_new', "
    "e.customer_id, 'marketing', 'win_back/whats_new', 'sent', :now - interval '3 days', :now - interval '3 days', :now, :now, 'b', "
    ":now - interval '3 days', :now - interval '3 days' from enrolments e where e.anchor_key like 'p%'",
)


def main() -> None:
    messages = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000
    each = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    data = Path(tempfile.mkdtemp(prefix="bench-")) / "data"
    url = db.start_embedded(data, "-c fsync=off -c full_page_writes=off").set(database="claims")
    try:
        db.create_database(url)
        db.migrate(url)
        engine = db.engine(url)
        back = load_campaign(settings().include / "campaigns" / "win_back.yml")
        values = {
            "now": NOW, "people": messages // each, "each": each, "campaign": back.id, "version": back.version,
            "definition": db.dumps(back.definition()),
        }  # fmt: skip
        with engine.begin() as conn:
            for statement in ROWS:
                conn.execute(text(statement), {k: v for k, v in values.items() if f":{k}" in statement})
        with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as conn:
            conn.execute(text("vacuum analyze"))
        box = outbox.Outbox(
            engine=engine, channel=None, url="", campaigns=[back], calendar=load_calendar(settings().include / "calendar.yml"),
            clock=lambda: NOW, worker="w",
        )  # type: ignore[arg-type]  # fmt: skip
        judged, started = 0, time.perf_counter()
        while claimed := box.claim(100):
            judged += len(claimed)
        took = time.perf_counter() - started
        with engine.begin() as conn:
            states = dict(
                conn.execute(
                    text("select state || coalesce(':' || reason, ''), count(*) from messages group by 1")
                ).all()
            )
        print(f"{judged:,} judged in {took:.1f} s: {judged / took:,.0f} a second; {states}")
    finally:
        db.stop_embedded(data)


if __name__ == "__main__":
    main()
