"""Many customers with many due messages, made by a few set-based inserts: for tests of rules across campaigns."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import text

from postlude import db
from postlude.campaign import Campaign
from world import World, campaign


def plain(name: str, **changes: Any) -> Campaign:
    """A campaign without exit rules, of any name and topic; its mail is the shipped first win-back mail."""
    bare = {
        "id": name,
        "exit_on": (),
        "goal": None,
        "stop_while": (),
        "needs_fresh_orders": False,
        "at_most_every": None,
    }
    return campaign("win_back", **(bare | changes))


def people(world: World, count: int, zone: str | None = None) -> list[int]:
    """`count` customers who agreed to marketing and to the topic `survey`."""
    found = world.do(
        "insert into customers (source_id, source_customer_id, email, first_name, time_zone, known_at) "
        "select 'shop', 'b' || n, 'b' || n || '@customers.example', 'Bo', :zone, '2020-01-01' from generate_series(1, :count) n "
        "returning customer_id",
        count=count,
        zone=zone,
    )
    world.do(
        "insert into consents select customer_id, 'email', topic, true, '2020-01-01', 'opt_in', '2020-01-01' "
        "from customers, unnest(array['marketing', 'survey']) as topic on conflict do nothing"
    )
    return [row[0] for row in found]


def due(
    world: World, planned: Campaign, customers: Iterable[int], send_at: datetime, life: timedelta, anchor: str = "x"
) -> None:
    """One scheduled message of `planned` for each customer, as planning writes it."""
    values = {
        "id": planned.id, "version": planned.version, "definition": db.dumps(planned.definition()), "people": list(customers),
        "anchor": anchor, "at": send_at, "until": send_at + life, "step": planned.steps[0].id, "template": planned.steps[0].template,
        "kind": planned.kind, "priority": planned.priority, "channel": planned.channel,
    }  # fmt: skip
    statements = (
        "insert into campaign_versions values (:id, :version, cast(:definition as jsonb), :at) on conflict do nothing",
        "insert into enrolments (enrolment_id, campaign_id, version, customer_id, anchor_key, anchor_at, watch_from, enrolled_at, run_id) "
        "select uuid_of('enrolment', :id, c::text, :anchor), :id, :version, c, :anchor, :at, :at, :at, 'test' "
        "from unnest(cast(:people as bigint[])) c",
        "insert into messages (message_id, enrolment_id, campaign_id, step_id, customer_id, channel, kind, template, priority, due_at, "
        "send_at, expires_at, planned_at, run_id) select uuid_of('message', uuid_of('enrolment', :id, c::text, :anchor)::text, :step), "
        "uuid_of('enrolment', :id, c::text, :anchor), :id, :step, c, :channel, :kind, :template, :priority, :at, :at, :until, :at, 'test' "
        "from unnest(cast(:people as bigint[])) c",
    )
    with db.transaction(world.engine) as conn:
        for statement in statements:
            conn.execute(text(statement), {key: value for key, value in values.items() if f":{key}" in statement})
