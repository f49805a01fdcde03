-- plan_messages: one row per step of every treated enrolment that has none yet, held until the plan is checked.
-- A step whose time has passed is written as expired: history, never a late send. A step that waits for something is
-- written once that came or its time is up; a step that a newer version of the file added is not for older passages.
--
-- reads   enrolments, campaign_versions, recipients, order_lines, orders, products, messages, events
-- writes  messages
-- params  campaign text, topic text, kind text, priority int, steps jsonb, opens time, closes time, weekdays int[],
--         blackouts date[], holidays jsonb, calendar_revision bigint, now timestamptz, run_id text, salt text
-- re-run  safe: the id is made from enrolment and step
insert into messages (
    message_id, enrolment_id, campaign_id, step_id, customer_id, channel, kind, template, variant, state, reason, due_at, send_at, expires_at,
    priority, calendar_revision, planned_at, run_id, finalized_at
)
with waiting as (
    select
        e.enrolment_id,
        e.customer_id,
        e.order_id,
        e.anchor_at,
        v.definition -> 'steps' as known_steps,
        r.zone,
        r.country,
        r.source_id
    from enrolments as e
    inner join campaign_versions as v on e.campaign_id = v.campaign_id and e.version = v.version
    inner join recipients as r on e.customer_id = r.customer_id
    where e.campaign_id = :campaign and e.exited_at is null and e.arm = 'treated'
),

steps as (
    select * from jsonb_to_recordset(:steps) as t (
        id text, channels text [], template text, variants jsonb, days int, by_category jsonb, seconds numeric, at time, expires_seconds numeric,
        previous text [], event text, wait_seconds numeric, otherwise text
    )
),

-- the main item of an order is its dearest line; looked up once per order, and only where a step asks for it
main as materialized (
    select distinct on (w.enrolment_id) w.enrolment_id, p.category
    from waiting as w
    inner join order_lines as l on w.order_id = l.order_id and l.counted
    inner join products as p on l.sku = p.sku and w.source_id = p.source_id
    where exists (select 1 from steps as t where t.by_category <> '{}')
    order by w.enrolment_id, l.quantity * l.unit_price desc, l.line_key
),

missing as (
    select
        w.enrolment_id,
        w.customer_id,
        w.order_id,
        w.anchor_at,
        w.zone,
        w.country,
        w.source_id,
        t.id as step_id,
        t.channels,
        t.template,
        t.variants,
        t.days,
        t.by_category,
        t.seconds,
        t.at,
        t.expires_seconds,
        t.previous,
        t.event,
        t.otherwise,
        make_interval(secs => t.wait_seconds::double precision) as patience
    from waiting as w
    cross join steps as t
    where
        not exists (
            select 1 from messages as m where m.enrolment_id = w.enrolment_id and m.step_id = t.id
        )
        and w.known_steps @> jsonb_build_array(jsonb_build_object('id', t.id))
),

-- from when a step counts: the anchor, or what it waits for; no row yet for what must still be waited for
started as (
    select
        n.*,
        case
            when n.event is null then n.anchor_at
            when p.told_at is null then p.over_at
            else least(e.came_at, p.told_at + n.patience)
        end as start_at,
        case
            when n.event is null then null
            when p.told_at is null then 'previous_not_sent'
            when (e.came_at is null or e.came_at > p.told_at + n.patience) and n.otherwise = 'skip' then 'event_did_not_come'
        end as given_up
    from missing as n
    cross join lateral (
        select
            max(m.handed_over_at) filter (where m.state in ('sent', 'unknown')) as told_at,
            max(m.finalized_at) as over_at,
            count(*) filter (where m.finalized_at is not null) as over
        from messages as m
        where n.event is not null and m.enrolment_id = n.enrolment_id and m.step_id = any(n.previous)
    ) as p
    cross join lateral (
        -- a condition of the join would be looked at after the call
        select
            case
                when p.told_at is not null then first_event(n.event, n.enrolment_id, n.customer_id, n.order_id, p.told_at, :now)
            end as came_at
    ) as e
    where
        n.event is null
        or (p.told_at is null and p.over = cardinality(n.previous))
        or e.came_at <= p.told_at + n.patience
        or p.told_at + n.patience <= cast(:now as timestamptz)
),

-- materialized: else the planner writes the zone arithmetic out wherever its result is used
timed as materialized (
    select
        w.*,
        greatest(
            w.start_at,
            case
                when w.days is null then w.start_at + make_interval(secs => w.seconds::double precision)
                else local_instant(
                    cast(w.start_at at time zone w.zone as date)
                    + coalesce(cast(w.by_category ->> main.category as int), w.days)
                    + coalesce(w.at, :opens),
                    w.zone
                )
            end
        ) as due_at,
        case when w.variants <> '[]' then variant_of(:campaign, w.step_id, w.customer_id, :salt, w.variants) end as variant
    from started as w
    left join main on w.enrolment_id = main.enrolment_id and w.by_category <> '{}'
),

-- a million messages have a few hundred different instants, zones and countries
openings as materialized (
    select
        d.due_at,
        d.zone,
        d.country,
        next_opening(d.due_at, d.zone, :opens, :closes, :weekdays, cast(:blackouts as date []) || coalesce(h.days, '{}')) as send_at
    from (select distinct t.due_at, t.zone, t.country from timed as t where t.given_up is null) as d
    left join jsonb_to_recordset(:holidays) as h (country text, days date []) on d.country = h.country
),

aimed as materialized (
    select
        t.enrolment_id,
        t.customer_id,
        t.step_id,
        t.channels,
        t.variant,
        t.given_up,
        t.due_at,
        case
            when t.variant is null then t.template
            else (select v ->> 'template' from jsonb_array_elements(t.variants) as v where v ->> 'name' = t.variant)
        end as template,
        case
            when t.given_up is not null then null
            when :kind = 'transactional' then t.due_at
            else o.send_at
        end as send_at,
        t.due_at + make_interval(secs => t.expires_seconds::double precision) as expires_at
    from timed as t
    left join openings as o on t.due_at = o.due_at and t.zone = o.zone and t.country is not distinct from o.country
),

placed as (
    select
        a.*,
        case
            when a.given_up is not null then a.given_up
            when a.expires_at <= :now then 'too_late'
            when coalesce(a.send_at >= a.expires_at, true) then 'no_window'
            else 'awaiting_check'
        end as reason
    from aimed as a
)

select
    uuid_of('message', p.enrolment_id::text, p.step_id),
    p.enrolment_id,
    :campaign,
    p.step_id,
    p.customer_id,
    channel_for(p.customer_id, p.channels, :kind, :topic, :now),
    :kind,
    p.template,
    p.variant,
    case when p.given_up is not null then 'skipped' when p.reason in ('too_late', 'no_window') then 'expired' else 'held' end,
    p.reason,
    p.due_at,
    coalesce(p.send_at, p.due_at),
    p.expires_at,
    :priority,
    :calendar_revision,
    :now,
    :run_id,
    case when p.reason <> 'awaiting_check' then cast(:now as timestamptz) end
from placed as p
on conflict do nothing
