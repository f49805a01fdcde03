-- merge_shipments: parcels. Facts only add up: a later delivery without a date does not take the date away.
--
-- reads   staging_shipments, orders
-- writes  shipments
-- params  source text
-- re-run  safe: an equal row changes nothing
insert into shipments as t (order_id, shipment_key, carrier, tracking_url, shipped_at, eta, delivered_at)
select distinct on (o.order_id, s.shipment_key)
    o.order_id,
    s.shipment_key,
    s.carrier,
    s.tracking_url,
    s.shipped_at,
    s.eta,
    s.delivered_at
from staging_shipments as s
inner join orders as o on o.source_id = :source and o.source_order_id = s.source_order_id
where cardinality(s.problems) = 0
order by o.order_id, s.shipment_key, s._file desc nulls last, s._row desc
on conflict (order_id, shipment_key) do update set
    carrier = coalesce(excluded.carrier, t.carrier),
    tracking_url = coalesce(excluded.tracking_url, t.tracking_url),
    shipped_at = coalesce(excluded.shipped_at, t.shipped_at),
    eta = coalesce(excluded.eta, t.eta),
    delivered_at = coalesce(excluded.delivered_at, t.delivered_at)
where
    (t.carrier, t.tracking_url, t.shipped_at, t.eta, t.delivered_at)
    is distinct from (
        coalesce(excluded.carrier, t.carrier), coalesce(excluded.tracking_url, t.tracking_url),
        coalesce(excluded.shipped_at, t.shipped_at), coalesce(excluded.eta, t.eta),
        coalesce(excluded.delivered_at, t.delivered_at)
    )
