-- plan_messages: one row per step of every treated enrolment that has none yet, held until the plan is checked.
-- A step whose time has passed is written as expired: history, never a late send.
--
-- reads   enrolments, customers, sources, time_zones, order_lines, orders, products
-- writes  messages
-- params  campaign text, channel text, kind text, priority int, steps jsonb, opens time, closes time, weekdays int[],
--         blackouts date[], calendar_revision bigint, now timestamptz, run_id text
-- re-run  safe: the id is made from enrolment and step
insert into messages (
    message_id, enrolment_id, campaign_id, step_id, customer_id, channel, kind, template, state, reason, due_at, send_at, expires_at,
    priority, calendar_revision, planned_at, run_id, finalized_at
)
with waiting as (
    select
        e.enrolment_id,
        e.customer_id,
        e.order_id,
        e.anchor_at,
        coalesce(z.zone, s.time_zone) as zone,
        s.source_id
    from enrolments as e
    inner join customers as c on e.customer_id = c.customer_id
    inner join sources as s on c.source_id = s.source_id
    left join time_zones as z on c.time_zone = z.zone
    where e.campaign_id = :campaign and e.exited_at is null and e.arm = 'treated'
),

steps as (
    select * from jsonb_to_recordset(:steps) as t (
        id text, template text, days int, by_category jsonb, seconds numeric, at time, expires_seconds numeric
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

-- materialized: else the time functions would be worked out anew wherever their result is named
timed as materialized (
    select
        w.enrolment_id,
        w.customer_id,
        w.zone,
        t.id as step_id,
        t.template,
        t.expires_seconds,
        greatest(
            w.anchor_at,
            case
                when t.days is null then w.anchor_at + make_interval(secs => t.seconds::double precision)
                else local_instant(
                    cast(w.anchor_at at time zone w.zone as date)
                    + coalesce(cast(t.by_category ->> main.category as int), t.days)
                    + coalesce(t.at, :opens),
                    w.zone
                )
            end
        ) as due_at
    from waiting as w
    cross join steps as t
    left join main on w.enrolment_id = main.enrolment_id and t.by_category <> '{}'
    where not exists (
        select 1 from messages as m where m.enrolment_id = w.enrolment_id and m.step_id = t.id
    )
),

-- a million messages have a few hundred different instants and zones
openings as materialized (
    select d.due_at, d.zone, next_opening(d.due_at, d.zone, :opens, :closes, :weekdays, :blackouts) as send_at
    from (select distinct t.due_at, t.zone from timed as t) as d
),

placed as (
    select
        t.enrolment_id,
        t.customer_id,
        t.step_id,
        t.template,
        t.due_at,
        o.send_at,
        t.due_at + make_interval(secs => t.expires_seconds::double precision) as expires_at
    from timed as t
    inner join openings as o on t.due_at = o.due_at and t.zone = o.zone
)

select
    uuid_of('message', p.enrolment_id::text, p.step_id),
    p.enrolment_id,
    :campaign,
    p.step_id,
    p.customer_id,
    :channel,
    :kind,
    p.template,
    case when p.expires_at <= :now or coalesce(p.send_at >= p.expires_at, true) then 'expired' else 'held' end,
    case
        when p.expires_at <= :now then 'too_late'
        when coalesce(p.send_at >= p.expires_at, true) then 'no_window'
        else 'awaiting_check'
    end,
    p.due_at,
    coalesce(p.send_at, p.due_at),
    p.expires_at,
    :priority,
    :calendar_revision,
    :now,
    :run_id,
    case when p.expires_at <= :now or coalesce(p.send_at >= p.expires_at, true) then cast(:now as timestamptz) end
from placed as p
on conflict do nothing
