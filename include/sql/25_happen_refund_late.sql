-- happen_refund_late: what was sent back has been here for longer than a refund may take.
--
-- reads   returns, orders, sources
-- writes  external_events
-- params  now timestamptz, reach interval, days int
-- re-run  safe: named by the return
insert into external_events (source_id, event_key, customer_id, kind, at, known_at, order_id, detail, worked_out)
select
    o.source_id,
    'postlude:refund_late:' || o.source_order_id || ':' || r.return_key,
    o.customer_id,
    'refund_late',
    r.received_at + make_interval(days => :days),
    :now,
    o.order_id,
    jsonb_build_object(
        'order_number', o.source_order_id, 'return', r.return_key, 'sku', r.sku,
        'received_on', cast(r.received_at at time zone s.time_zone as date),
        'due_on', cast(r.received_at at time zone s.time_zone as date) + cast(:days as int),
        'days_late', cast(cast(:now as timestamptz) at time zone s.time_zone as date)
        - cast(r.received_at at time zone s.time_zone as date) - cast(:days as int)
    ),
    true
from returns as r
inner join orders as o on r.order_id = o.order_id
inner join sources as s on o.source_id = s.source_id
where
    r.received_at <= cast(:now as timestamptz) - make_interval(days => :days)
    and r.received_at > cast(:now as timestamptz) - make_interval(days => :days) - cast(:reach as interval)
    and (r.refunded_at is null or r.refunded_at > :now)
    and (r.closed_at is null or r.closed_at > :now)
    and o.customer_id is not null
    and o.marketplace is null
on conflict do nothing
