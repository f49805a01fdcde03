"""Rows for the tests of the gates, written straight into a migrated database."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import Engine, text
from sqlalchemy.engine import URL

from postlude import quality
from postlude.errors import GateClosed

NOW = datetime(2026, 3, 1, 6, 0, tzinfo=UTC)
HASH = "a" * 64

STAGING = {
    "orders": "source_order_id text, source_customer_id text, currency text, status text, placed_at timestamptz, "
    "cancelled_at timestamptz, problems text[]",
    "order_lines": "source_order_id text, line_key text, sku text, description text, quantity numeric, unit_price "
    "numeric, "
    "placed_at timestamptz, problems text[], _file int",
    "customers": "source_customer_id text, email text, first_name text, problems text[]",
}


class Shop:
    """Writes rows straight into a migrated database and asks gates about them."""

    def __init__(self, engine: Engine, url: URL) -> None:
        self.engine, self.url = engine, url
        self.do(
            "insert into sources (source_id, shop, kind, currency, time_zone) values ('toys', 'Toys', 'csv', 'EUR', "
            "'UTC')"
        )

    def do(self, sql: str, **params: Any) -> Any:
        with self.engine.begin() as conn:
            result = conn.execute(text(sql), {"now": NOW, **params} if ":now" in sql else params)
            return result.all() if result.returns_rows else result.rowcount

    def check(self, gate: str, **more: Any) -> quality.Verdict:
        subject = {"orders": "toys", "plan": "hello"}.get(gate, "")
        return quality.check(self.url, gate, **{"subject": subject, "now": NOW, "run_id": "run-1", **more})

    def closed(self, gate: str, **more: Any) -> str:
        with pytest.raises(GateClosed) as error:
            self.check(gate, **more)
        return str(error.value)

    def verdicts(self) -> list[Any]:
        return self.do("select * from gate_results order by gate_result_id")

    # ------------------------------------------------------------ rows

    def stage(self, *entities: str, orders: int = 200) -> None:
        for entity in entities or ("orders", "order_lines"):
            self.do(f"create unlogged table staging_toys_{entity} ({STAGING[entity]})")
        if "orders" in entities or not entities:
            self.do(
                "insert into staging_toys_orders select 'o' || n, case when n % 5 > 0 then 'c' || n end, 'EUR', "
                "'paid', "
                "cast(:now as timestamptz) - n * interval '1 hour', "
                "case when n % 50 = 0 then cast(:now as timestamptz) - n * interval '1 hour' end, "
                "case when n % 2 = 0 then cast('{}' as text[]) end from generate_series(1, :n) as n",
                n=orders,
            )
        if "order_lines" in entities or not entities:
            self.do(
                "insert into staging_toys_order_lines select 'o' || n, '1', 'sku' || n % 9, 'a thing', "
                "case when n % 40 = 0 then -1 else 2 end, case when n % 100 = 0 then 0 else 9.5 end, null, null "
                "from generate_series(1, :n) as n",
                n=orders,
            )

    def customers(self, number: int = 200, step: str = "1 day") -> None:
        """Customers with one counted order each, and the features that follow from it."""
        self.do(
            "insert into customers (source_id, source_customer_id, email, known_at) "
            "select 'toys', 'c' || n, 'c' || n || '@customers.example', :now from generate_series(1, :n) as n",
            n=number,
        )
        self.do(
            "insert into orders (source_id, source_order_id, customer_id, currency, placed_at, counted_at, "
            "counted_amount, known_at) "
            "select source_id, 'o' || customer_id, customer_id, 'EUR', at, at, 20, :now from ("
            "  select *, cast(:now as timestamptz) - customer_id * cast(:step as interval) as at from customers) as c",
            step=step,
        )
        self.features()

    def features(self, as_of: datetime = NOW) -> None:
        """Features in a table of the name of the view, so that tests can spoil any column of them."""
        [(view,)] = self.do("select relkind = 'v' from pg_class where oid = cast('customer_features' as regclass)")
        if view:
            self.do("alter view customer_features rename to derived_features")
            self.do("create table customer_features (like derived_features)")
        self.do("delete from customer_features")
        self.do(
            "insert into customer_features select customer_id, 'toys', counted_at, counted_at, order_id, days, 1, "
            "counted_amount, "
            "null, case when days < 30 then 'new' when days < 90 then 'active' when days < 180 then 'at_risk' else "
            "'lapsed' end, "
            "counted_at, null, null, 1 + order_id % 5, 1 + order_id % 5, 1 + order_id % 5 from ("
            "  select *, cast(floor(extract(epoch from cast(:as_of as timestamptz) - counted_at) / 86400) as int) "
            "as days "
            "  from orders) as o",
            as_of=as_of,
        )
        self.do("delete from feature_state")
        self.do("insert into feature_state (as_of, run_id, computed_at) values (:as_of, 'run-1', :as_of)", as_of=as_of)

    def plan(self, number: int = 5, state: str = "held") -> None:
        """Treated enrolments with one message each, planned one hour ago, due tomorrow; consent given yesterday."""
        self.do(
            "insert into campaign_versions values ('hello', 'v1', cast(:definition as jsonb), :now)",
            definition=json.dumps({"topic": "news"}),
        )
        self.do(
            "insert into customers (source_id, source_customer_id, email, first_name, known_at) "
            "select 'toys', 'p' || n, 'p' || n || '@customers.example', 'Ana', :now from generate_series(1, :n) as n",
            n=number,
        )
        self.do(
            "insert into consents select customer_id, 'email', 'news', true, cast(:now as timestamptz) - interval "
            "'1 day', "
            "'opt_in', cast(:now as timestamptz) - interval '1 day' from customers"
        )
        self.do(
            "insert into enrolments (enrolment_id, campaign_id, version, customer_id, anchor_key, anchor_at, "
            "watch_from, enrolled_at, "
            "run_id) select gen_random_uuid(), 'hello', 'v1', customer_id, 'once', :now, :now, :now, 'run-1' from "
            "customers"
        )
        self.do(
            "insert into messages (message_id, enrolment_id, campaign_id, step_id, customer_id, kind, template, "
            "state, reason, due_at, "
            "send_at, expires_at, planned_at, run_id) select gen_random_uuid(), enrolment_id, 'hello', 'first', "
            "customer_id, "
            "'marketing', 'hello/first', cast(:state as text), case when :state = 'held' then 'awaiting_check' end, "
            "cast(:now as timestamptz) + interval '1 day', cast(:now as timestamptz) + interval '25 hours', "
            "cast(:now as timestamptz) + interval '3 days', cast(:now as timestamptz) - interval '1 hour', 'run-1' "
            "from enrolments",
            state=state,
        )

    def send(self) -> None:
        """Four of five planned messages were sent two hours ago, one was skipped."""
        self.plan(5, state="scheduled")
        self.do(
            "update messages set due_at = d.at, send_at = d.at, expires_at = d.at + interval '2 days', state = "
            "'sent', attempt = 1, "
            "handed_over_at = d.at + interval '1 hour', finalized_at = d.at + interval '61 minutes', content_hash = "
            ":hash "
            "from (select cast(:now as timestamptz) - interval '3 hours' as at) as d",
            hash=HASH,
        )
        self.do(
            "update messages set state = 'skipped', reason = 'no_consent', attempt = 0, handed_over_at = null, "
            "content_hash = null "
            "where message_id = (select message_id from messages limit 1)"
        )
        self.do(
            "insert into attempts (message_id, attempt, worker, claimed_at, handed_over_at, settled_at, outcome) "
            "select message_id, 1, 'w1', handed_over_at, handed_over_at, finalized_at, 'accepted' from messages "
            "where state = 'sent'"
        )

    def hear(self) -> None:
        """One delivery report per sent message."""
        self.send()
        self.do(
            "insert into events (event_id, message_id, customer_id, kind, at, known_at, source) select "
            "gen_random_uuid(), "
            "message_id, customer_id, 'delivered', finalized_at, finalized_at, 'smtp' from messages where state = "
            "'sent'"
        )

    def unguarded(self, table: str) -> None:
        """The table without its checks and not-nulls: what a gate is for when a constraint is missing."""
        for (name,) in self.do(
            "select conname from pg_constraint where conrelid = cast(:t as regclass) and contype = 'c'", t=table
        ):
            self.do(f'alter table {table} drop constraint "{name}"')
        for (name,) in self.do(
            "select attname from pg_attribute where attrelid = cast(:t as regclass) and attnum > 0 and attnotnull "
            "and not exists (select 1 from pg_index where indrelid = attrelid and indisprimary and attnum = "
            "any(indkey))",
            t=table,
        ):
            self.do(f"alter table {table} alter column {name} drop not null")
