-- happen_packed_today: paid behind the day's cut-off, so it is packed the next morning.
--
-- reads   orders, shipments, sources
-- writes  external_events
-- params  now timestamptz, reach interval, cut_off time
-- re-run  safe: named by the order
insert into external_events (source_id, event_key, customer_id, kind, at, known_at, order_id, detail, worked_out)
with paid as (
    select
        o.*,
        s.time_zone,
        cast(o.paid_at at time zone s.time_zone as date) + 1 as packs_on
    from orders as o
    inner join sources as s on o.source_id = s.source_id
    where
        o.paid_at <= :now
        and o.paid_at > cast(:now as timestamptz) - least(cast(:reach as interval), interval '3 days')
        and o.placed_at > cast(:now as timestamptz) - interval '30 days'
        and cast(o.paid_at at time zone s.time_zone as time) >= cast(:cut_off as time)
        and (o.cancelled_at is null or o.cancelled_at > :now)
        and o.customer_id is not null
        and o.marketplace is null
)

select
    p.source_id,
    'postlude:packed_today:' || p.source_order_id,
    p.customer_id,
    'packed_today',
    local_instant(p.packs_on + time '00:00', p.time_zone),
    :now,
    p.order_id,
    jsonb_build_object('order_number', p.source_order_id, 'packs_on', p.packs_on),
    true
from paid as p
where
    local_instant(p.packs_on + time '00:00', p.time_zone) <= :now
    and not exists (select 1 from shipments as h where h.order_id = p.order_id and h.shipped_at <= :now)
on conflict do nothing
