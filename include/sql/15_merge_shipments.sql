-- merge_shipments: parcels. Facts only add up: a row without a date does not take the date away, neither one of a later delivery nor
-- one of the same (files may overtake each other).
--
-- reads   staging_shipments, orders
-- writes  shipments
-- params  source text
-- re-run  safe: an equal row changes nothing
with told as (
    select
        o.order_id,
        s.shipment_key,
        array_agg(s.carrier order by s._file desc nulls last, s._row desc) filter (where s.carrier is not null) as carriers,
        array_agg(s.tracking_url order by s._file desc nulls last, s._row desc) filter (where s.tracking_url is not null) as tracking_urls,
        array_agg(s.tracking_number order by s._file desc nulls last, s._row desc)
            filter (where s.tracking_number is not null) as tracking_numbers,
        array_agg(s.shipped_at order by s._file desc nulls last, s._row desc) filter (where s.shipped_at is not null) as shipped,
        array_agg(s.eta order by s._file desc nulls last, s._row desc) filter (where s.eta is not null) as etas,
        array_agg(s.delivered_at order by s._file desc nulls last, s._row desc) filter (where s.delivered_at is not null) as delivered
    from staging_shipments as s
    inner join orders as o on o.source_id = :source and o.source_order_id = s.source_order_id
    where cardinality(s.problems) = 0
    group by o.order_id, s.shipment_key
)

insert into shipments as t (order_id, shipment_key, carrier, tracking_url, tracking_number, shipped_at, eta, delivered_at)
select
    n.order_id,
    n.shipment_key,
    n.carriers[1],
    n.tracking_urls[1],
    n.tracking_numbers[1],
    n.shipped[1],
    n.etas[1],
    n.delivered[1]
from told as n
order by n.order_id, n.shipment_key
on conflict (order_id, shipment_key) do update set
    carrier = coalesce(excluded.carrier, t.carrier),
    tracking_url = coalesce(excluded.tracking_url, t.tracking_url),
    tracking_number = coalesce(excluded.tracking_number, t.tracking_number),
    shipped_at = coalesce(excluded.shipped_at, t.shipped_at),
    eta = coalesce(excluded.eta, t.eta),
    delivered_at = coalesce(excluded.delivered_at, t.delivered_at)
where
    (t.carrier, t.tracking_url, t.tracking_number, t.shipped_at, t.eta, t.delivered_at)
    is distinct from (
        coalesce(excluded.carrier, t.carrier), coalesce(excluded.tracking_url, t.tracking_url),
        coalesce(excluded.tracking_number, t.tracking_number),
        coalesce(excluded.shipped_at, t.shipped_at), coalesce(excluded.eta, t.eta),
        coalesce(excluded.delivered_at, t.delivered_at)
    )
