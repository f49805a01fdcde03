-- happen_disengaged: mail went, and for 150 days no human has given a sign. Who never got mail in that time is not asked.
--
-- reads   messages, events, orders, consents, external_events, customers
-- writes  external_events
-- params  now timestamptz, reach interval
-- re-run  safe: named by the last sign
insert into external_events (source_id, event_key, customer_id, kind, at, known_at, order_id, detail, worked_out)
with written_to as (
    select m.customer_id
    from messages as m
    where
        m.state in ('sent', 'unknown')
        and m.kind = 'marketing'
        and m.channel = 'email'
        and m.handed_over_at > cast(:now as timestamptz) - interval '150 days'
        and m.handed_over_at <= :now
        -- who ordered meanwhile is not asked further: that is nearly everybody
        and not exists (
            select 1 from orders as o
            where o.customer_id = m.customer_id and o.counted_at > cast(:now as timestamptz) - interval '150 days' and o.counted_at < :now
        )
    group by m.customer_id
),

-- materialized: each is looked for once and not for each mention of it
signs as materialized (
    select
        w.customer_id,
        c.source_id,
        coalesce(last_sign_of(w.customer_id, :now), c.created_at, c.known_at) as last_sign
    from written_to as w
    inner join customers as c on w.customer_id = c.customer_id
)

select
    s.source_id,
    'postlude:disengaged:' || s.customer_id || ':' || cast(s.last_sign at time zone 'UTC' as date),
    s.customer_id,
    'disengaged',
    s.last_sign + interval '150 days',
    :now,
    null,
    jsonb_build_object('last_sign_on', cast(s.last_sign at time zone 'UTC' as date)),
    true
from signs as s
where
    s.last_sign <= cast(:now as timestamptz) - interval '150 days'
    and s.last_sign > cast(:now as timestamptz) - interval '150 days' - cast(:reach as interval)
on conflict do nothing
