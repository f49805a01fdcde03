-- candidates_of_parcel: parcels handed over within the campaign's reach, each once; those of one order that left at the same instant
-- are told of once. What has arrived already is no news.
-- customer: this one only; null: everybody.
--
-- reads   shipments, orders
-- writes  candidates (temporary)
-- params  now timestamptz, max_age interval, customer bigint
-- re-run  safe: lives for one transaction
create temporary table candidates on commit drop as
select distinct on (o.order_id, p.shipped_at)
    o.customer_id,
    o.order_id,
    'parcel:' || o.source_id || ':' || o.source_order_id || ':' || p.shipment_key as anchor_key,
    p.shipped_at as anchor_at,
    p.shipped_at as watch_from,
    o.source_id,
    -- it counts, but the person is the marketplace's customer there
    case when o.marketplace is not null then 'marketplace' end as objection
from shipments as p
inner join orders as o on p.order_id = o.order_id
where
    o.customer_id is not null
    and (cast(:customer as bigint) is null or o.customer_id = cast(:customer as bigint))
    and p.shipped_at <= :now
    and p.shipped_at > cast(:now as timestamptz) - cast(:max_age as interval)
    and (p.delivered_at is null or p.delivered_at > :now)
order by o.order_id, p.shipped_at, p.shipment_key
