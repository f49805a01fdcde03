-- timeline: what happened to a person, newest first: orders and their parcels, returns and reviews, passages, messages, events,
-- consents, breaks, and what other systems told.
--
-- reads   orders, shipments, returns, reviews, enrolments, messages, events, consents, suppressions, breaks, external_events, tickets
-- params  customers bigint[], now timestamptz, most int
-- re-run  safe: only reads
with theirs as (
    select o.* from orders as o
    where o.customer_id = any(cast(:customers as bigint []))
)

select * from (
    select
        o.placed_at as at,
        'order' as what,
        o.source_order_id as name,
        case when o.cancelled_at <= :now then 'cancelled' else coalesce(o.status, 'placed') end as state,
        cast(null as text) as reason,
        case when o.counted_amount is not null then o.counted_amount || ' ' || o.currency end as detail
    from theirs as o
    union all
    select p.delivered_at, 'delivery', o.source_order_id, 'delivered', null, p.carrier
    from theirs as o
    inner join shipments as p on o.order_id = p.order_id
    where p.delivered_at is not null
    union all
    select r.requested_at, 'return', o.source_order_id, case when r.closed_at is null then 'open' else 'closed' end, null, r.sku
    from theirs as o
    inner join returns as r on o.order_id = r.order_id
    union all
    select v.created_at, 'review', o.source_order_id, coalesce(v.score::text, 'no mark'), null, null
    from theirs as o
    inner join reviews as v on o.order_id = v.order_id
    union all
    select t.opened_at, 'question', t.ticket_key, case when t.closed_at is null then 'open' else 'closed' end, null, null
    from tickets as t
    where t.customer_id = any(cast(:customers as bigint []))
    union all
    select
        e.enrolled_at, 'campaign begun', e.campaign_id, case e.arm when 'holdout' then 'left alone' else 'enrolled' end, null, e.anchor_key
    from enrolments as e
    where e.customer_id = any(cast(:customers as bigint []))
    union all
    select e.exited_at, 'campaign ended', e.campaign_id, 'ended', e.exit_reason, e.anchor_key
    from enrolments as e
    where e.customer_id = any(cast(:customers as bigint [])) and e.exited_at is not null
    union all
    select
        coalesce(m.handed_over_at, m.finalized_at, m.send_at), 'message', m.campaign_id || '/' || m.step_id, m.state, m.reason,
        case when m.channel <> 'email' then m.channel end
    from messages as m
    where m.customer_id = any(cast(:customers as bigint []))
    union all
    select v.at, 'event', coalesce(m.campaign_id || '/' || m.step_id, ''), v.kind, null, v.detail ->> 'score'
    from events as v
    left join messages as m on v.message_id = m.message_id
    where v.customer_id = any(cast(:customers as bigint []))
    union all
    select k.at, 'consent', k.topic || ' by ' || k.channel, case when k.granted then 'given' else 'withdrawn' end, k.basis, null
    from consents as k
    where k.customer_id = any(cast(:customers as bigint []))
    union all
    select b.since, 'break', b.asked_by, case when b.ended_at is null then 'until' else 'ended' end, null, coalesce(b.ended_at, b.until)::text
    from breaks as b
    where b.customer_id = any(cast(:customers as bigint []))
    union all
    select x.at, 'told from outside', x.kind, x.source_id, null, null
    from external_events as x
    where x.customer_id = any(cast(:customers as bigint []))
    union all
    select s.since, 'suppressed', s.scope, case when s.lifted_at is null then 'in force' else 'lifted' end, s.reason, s.why
    from suppressions as s
    inner join customers as c on s.address in (c.address, c.phone)
    where c.customer_id = any(cast(:customers as bigint []))
) as happened
order by happened.at desc, happened.what, happened.name
limit :most
