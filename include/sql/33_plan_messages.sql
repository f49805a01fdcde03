-- plan_messages: one row per step of every treated enrolment that has none yet, held until the plan is checked.
-- A step whose time has passed is written as expired: history, never a late send.
--
-- reads   enrolments, recipients, order_lines, orders, products
-- writes  messages
-- params  campaign text, channel text, kind text, priority int, steps jsonb, opens time, closes time, weekdays int[],
--         blackouts date[], holidays jsonb, calendar_revision bigint, now timestamptz, run_id text
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
        r.zone,
        r.country,
        r.source_id
    from enrolments as e
    inner join recipients as r on e.customer_id = r.customer_id
    where e.campaign_id = :campaign and e.exited_at is null and e.arm = 'treated'
),

steps as (
    select * from jsonb_to_recordset(:steps) as t (
        id text, template text, days int, by_category jsonb, seconds numeric, at time, expires_seconds numeric
    )
),

timed as (
    select
        w.enrolment_id,
        w.customer_id,
        w.zone,
        w.country,
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
    left join lateral (
        -- the main item of an order is its dearest line
        select p.category
        from order_lines as l
        inner join products as p on l.sku = p.sku and w.source_id = p.source_id
        where l.order_id = w.order_id and l.counted
        order by l.quantity * l.unit_price desc, l.line_key
        limit 1
    ) as main on t.by_category <> '{}'
    where not exists (
        select 1 from messages as m where m.enrolment_id = w.enrolment_id and m.step_id = t.id
    )
),

placed as (
    select
        t.enrolment_id,
        t.customer_id,
        t.step_id,
        t.template,
        t.due_at,
        case
            when :kind = 'transactional' then t.due_at
            else next_opening(t.due_at, t.zone, :opens, :closes, :weekdays, cast(:blackouts as date []) || coalesce(h.days, '{}'))
        end as send_at,
        t.due_at + make_interval(secs => t.expires_seconds::double precision) as expires_at
    from timed as t
    left join jsonb_to_recordset(:holidays) as h (country text, days date []) on t.country = h.country
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
