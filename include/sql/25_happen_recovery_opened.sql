-- happen_recovery_opened: a case of service recovery was opened; somebody apologises within a business day.
--
-- reads   recoveries, orders, customers
-- writes  external_events
-- params  now timestamptz, reach interval
-- re-run  safe: named by the case
insert into external_events (source_id, event_key, customer_id, kind, at, known_at, order_id, detail, worked_out)
select
    c.source_id,
    'postlude:recovery_opened:' || r.recovery_id,
    r.customer_id,
    'recovery_opened',
    r.opened_at,
    :now,
    r.order_id,
    jsonb_build_object(
        'recovery', r.recovery_id, 'cause', r.cause, 'score', r.score, 'owner', r.owner, 'owner_email', r.owner_email,
        'make_good', r.make_good, 'order_number', o.source_order_id
    ),
    true
from recoveries as r
inner join customers as c on r.customer_id = c.customer_id
left join orders as o on r.order_id = o.order_id
where
    r.opened_at <= :now
    and r.opened_at > cast(:now as timestamptz) - cast(:reach as interval)
    and (r.resolved_at is null or r.resolved_at > :now)
on conflict do nothing
