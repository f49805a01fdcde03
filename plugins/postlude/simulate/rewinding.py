"""The copy as it was at an earlier instant: what happened since is taken out, and kept aside to arrive again in its time.

Rows that say when they were known (orders, consents, suppressions, reports, ...) go aside. What the stages made of them since is
undone, and made anew by the stages. Facts that carry only their own time (parcels, returns, reviews of orders known before) stay:
every statement reads them as of its clock.
"""

# ruff: noqa: S608 - the names of tables and columns are constants of this module

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Connection, text

# the copy is nobody's truth: without keys to other tables rows may come and go in any order
PREPARE = (
    """do $$ declare k record; begin
         for k in select conrelid::regclass as t, conname from pg_constraint
                  where contype = 'f' and connamespace = 'postlude'::regnamespace loop
           execute format('alter table %s drop constraint %I', k.t, k.conname);
         end loop; end $$""",
    "create table future_orders (customer_id bigint, nth int, placed_at timestamptz, like_order bigint, "
    "told boolean not null default false)",
    "create index future_orders_due on future_orders (placed_at) where not told",
    """create function dice(seed text, customer bigint, nth int, what text) returns double precision language sql immutable parallel safe as
       $$ select ('x' || substr(md5(seed || ':' || customer || ':' || nth || ':' || what), 1, 8))::bit(32)::bigint / 4294967296.0 $$""",
    "create schema arrivals",
)

# table -> when a row of it was known
KNOWN = {
    "customers": "known_at",
    "orders": "known_at",
    "consents": "known_at",
    "suppressions": "since",
    "event_inbox": "received_at",
    "external_events": "known_at",
    "kill_switches": "since",
    "feed_marks": "loaded_at",
    "feed_days": "counted_at",
    "breaks": "since",
}
# what belongs to an order or customer arrives with it
CHILDREN = {
    "order_lines": ("order_id", "orders"),
    "shipments": ("order_id", "orders"),
    "returns": ("order_id", "orders"),
    "reviews": ("order_id", "orders"),
    "customer_identities": ("customer_id", "customers"),
}
REST = (
    "messages",
    "ghost_messages",
    "coupons",
    "calendar_revisions",
    "approvals",
    "approval_decisions",
    "orders",
    "customers",
)

ASIDE = (
    "create table arrivals.lifted as select suppression_id, lifted_at, lifted_by, lift_reason from suppressions where lifted_at >= :first",
    "create table arrivals.unstopped as select switch_id, lifted_at, lifted_by, lift_reason from kill_switches where lifted_at >= :first",
    "create table arrivals.runs as select * from runs where as_of >= :first",
    "create table arrivals.attempts as select * from attempts where claimed_at >= :first",
    "create table arrivals.decisions as select * from approval_decisions where at >= :first",
    "create table arrivals.versions as select * from campaign_versions",
    "create table arrivals.codes as select k.pool, k.code, k.valid_until, k.created_at, k.coupon_id from coupons as k "
    "join coupon_pools as p using (pool) where p.kind = 'imported' and k.created_at >= :first",
    # how messages ended: what could not be written then cannot be written now
    "create table arrivals.fates as select message_id, attempt, state, reason, detail from messages "
    "where reason in ('cannot_render', 'template_fault')",
)

UNDO = (
    "update suppressions set lifted_at = null, lifted_by = null, lift_reason = null where lifted_at >= :first",
    "update kill_switches set lifted_at = null, lifted_by = null, lift_reason = null where lifted_at >= :first",
    "update breaks set ended_at = null where ended_at >= :first",
    "update arrivals.event_inbox set taken_at = null, problem = null",
    "delete from arrivals.breaks where asked_by = 'reply'",  # the stage makes them anew of the reply
    "delete from events where known_at >= :first",
    "update event_inbox set taken_at = null, problem = null where taken_at >= :first",
    "delete from reviews where review_key like 'postlude:%' and created_at >= :first",
    "delete from runs where as_of >= :first",
    # gates
    "delete from canary_messages where drawn_at >= :first",
    "update messages set canary_id = null where canary_id in (select canary_id from canaries where started_at >= :first)",
    "delete from canaries where started_at >= :first",
    "update canaries set outcome = null, judged_at = null where judged_at >= :first",
    "delete from approval_decisions where at >= :first",
    "update messages set approval_id = null where approval_id in (select approval_id from approvals where asked_at >= :first)",
    "delete from approvals where asked_at >= :first",
    # coupons
    "delete from coupons where created_at >= :first",
    "update coupons set state = 'free', message_id = null, reserved_at = null, bound_at = null, ended_at = null "
    "where reserved_at >= :first",
    "update coupons set state = 'reserved', bound_at = null, ended_at = null "
    "where bound_at >= :first or ended_at >= :first and message_id is not null",
    # messages planned since go; those of before are as they were
    "create temporary table first_moves on commit drop as select distinct on (message_id) * from message_moves where at >= :first "
    "order by message_id, move_id",
    "delete from messages as m where m.planned_at >= :first "
    "and not exists (select from first_moves as v where v.message_id = m.message_id and v.planned_at < :first)",
    "delete from ghost_messages where planned_at >= :first",
    # handed over before, its fate known since: it was unknown
    """update messages set state = 'unknown', reason = 'answer_lost', finalized_at = null
       where finalized_at >= :first and handed_over_at < :first""",
    """update messages as m
       set state = case when v.state = 'held' then 'held' else 'scheduled' end,
           reason = case when v.message_id is not null then v.reason
                         when m.state = 'expired' and m.reason in ('capped', 'on_break', 'quota') then m.reason end,
           detail = v.detail, due_at = coalesce(v.due_at, m.due_at), send_at = coalesce(v.send_at, m.send_at),
           expires_at = coalesce(v.expires_at, m.expires_at), planned_at = coalesce(v.planned_at, m.planned_at),
           max_attempts = coalesce(v.max_attempts, m.max_attempts),
           attempt = (select count(*) from attempts as a where a.message_id = m.message_id and a.claimed_at < :first),
           claimed_by = null, claimed_at = null, handed_over_at = null, finalized_at = null, provider_id = null, content_hash = null,
           coupon_code = null, lost_answers = 0, resend_at = null, quota_day = null
       from messages as x left join first_moves as v using (message_id)
       where m.message_id = x.message_id and x.state <> 'unknown'
         and (x.finalized_at >= :first or x.handed_over_at >= :first or x.claimed_at >= :first or v.message_id is not null)
         and (x.finalized_at is null or x.finalized_at >= :first)""",
    """update messages set state = 'scheduled', reason = null, claimed_by = null, claimed_at = null, handed_over_at = null,
           resend_at = null, lost_answers = 0, content_hash = null, provider_id = null,
           attempt = (select count(*) from attempts as a where a.message_id = messages.message_id and a.claimed_at < :first)
       where state = 'unknown' and handed_over_at >= :first""",
    "update ghost_messages set state = 'scheduled', reason = null, detail = null, went_at = null, finalized_at = null "
    "where finalized_at >= :first or went_at >= :first",
    "delete from attempts where claimed_at >= :first",
    "delete from message_moves where at >= :first",
    "delete from interventions where at >= :first",
    # passages
    "delete from enrolments where enrolled_at >= :first",
    "update enrolments set exited_at = null, exit_reason = null where exited_at >= :first",
    "delete from holdouts where since >= :first",
    "delete from refusals where first_seen >= :first",
    "delete from campaign_versions where first_seen >= :first",
    "delete from quota_use where day >= cast(:first as timestamptz)::date",
    "delete from provider_places", "delete from provider_pace", "delete from relay_breakers",
    # the watermark that was told by then
    """update sources as s set complete_until = k.complete_until, loaded_at = k.loaded_at
       from (select distinct on (source_id) * from feed_marks order by source_id, loaded_at desc) as k
       where k.source_id = s.source_id and exists (select from arrivals.feed_marks as n where n.source_id = s.source_id)""",
    "select setval(pg_get_serial_sequence('postlude.approvals', 'approval_id'), coalesce(max(approval_id), 0) + 1, false) from approvals",
    "select setval(pg_get_serial_sequence('postlude.canaries', 'canary_id'), coalesce(max(canary_id), 0) + 1, false) from canaries",
)  # fmt: skip

ANYTHING = """select
    exists (select from messages where planned_at >= :first or handed_over_at >= :first or finalized_at >= :first)
    or exists (select from enrolments where enrolled_at >= :first or exited_at >= :first)
    or exists (select from orders where known_at >= :first) or exists (select from runs where as_of >= :first)
    or exists (select from event_inbox where received_at >= :first) or exists (select from suppressions where since >= :first)"""


def prepare(conn: Connection) -> None:
    """Make the copy ready for any simulation."""
    for statement in PREPARE:
        conn.execute(text(statement))


def happened_since(conn: Connection, first: datetime) -> bool:
    return bool(conn.execute(text(ANYTHING), {"first": first}).scalar_one())


def take_back(conn: Connection, first: datetime) -> None:
    """Bring the copy to what it was at `first`; what came since is kept in the schema `arrivals`."""
    for table in REST:
        conn.exec_driver_sql(f"alter table {table} disable trigger user")
    for table, known in KNOWN.items():
        conn.execute(
            text(f"create table arrivals.{table} as select * from {table} where {known} >= :first"), {"first": first}
        )
    for child, (key, parent) in CHILDREN.items():
        conn.exec_driver_sql(
            f"create table arrivals.{child} as select * from {child} where {key} in (select {key} from arrivals.{parent})"
        )
    for statement in ASIDE:
        conn.execute(text(statement), {"first": first})
    for table, known in KNOWN.items():
        conn.execute(text(f"delete from {table} where {known} >= :first"), {"first": first})
    for child, (key, parent) in CHILDREN.items():
        conn.exec_driver_sql(f"delete from {child} where {key} in (select {key} from arrivals.{parent})")
    for statement in UNDO:
        conn.execute(text(statement), {"first": first} if ":first" in statement else {})
    for table in REST:
        conn.exec_driver_sql(f"alter table {table} enable trigger user")


def arrive(conn: Connection, columns: dict[str, str], now: datetime) -> None:
    """What was known by `now` is there. columns: per table those that can be written."""
    for table, known in KNOWN.items():
        moved = conn.execute(
            text(
                f"with gone as (delete from arrivals.{table} where {known} <= :now returning *) "
                f"insert into {table} ({columns[table]}) overriding system value select {columns[table]} from gone on conflict do nothing"
            ),
            {"now": now},
        ).rowcount
        if moved:
            for child, (key, parent) in CHILDREN.items():
                if parent == table:
                    conn.exec_driver_sql(
                        f"with gone as (delete from arrivals.{child} where {key} in (select {key} from {parent}) returning *) "
                        f"insert into {child} ({columns[child]}) overriding system value select {columns[child]} from gone "
                        "on conflict do nothing"
                    )
            if table == "feed_marks":
                conn.exec_driver_sql(
                    "update sources as s set complete_until = k.complete_until, loaded_at = k.loaded_at "
                    "from (select distinct on (source_id) * from feed_marks order by source_id, loaded_at desc) as k "
                    "where k.source_id = s.source_id"
                )
    conn.execute(
        text(
            "with gone as (delete from arrivals.codes where created_at <= :now returning *) "
            "insert into coupons (pool, code, valid_until, state, created_at) "
            "select pool, code, valid_until, 'free', created_at from gone order by coupon_id"
        ),
        {"now": now},
    )
    for table, key, aside in (
        ("suppressions", "suppression_id", "lifted"),
        ("kill_switches", "switch_id", "unstopped"),
    ):
        conn.execute(
            text(
                f"update {table} as s set lifted_at = l.lifted_at, lifted_by = l.lifted_by, lift_reason = l.lift_reason "
                f"from arrivals.{aside} as l where l.{key} = s.{key} and l.lifted_at <= :now and s.lifted_at is null"
            ),
            {"now": now},
        )
