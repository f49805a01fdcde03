-- happen_high_value_bought: an order was paid that holds a product dear enough for a word from an expert.
--
-- reads   orders, order_lines, products, sources
-- writes  external_events
-- params  now timestamptz, reach interval, worth numeric
-- re-run  safe: named by the order
insert into external_events (source_id, event_key, customer_id, kind, at, known_at, order_id, detail, worked_out)
select distinct on (o.order_id)
    o.source_id,
    'postlude:high_value_bought:' || o.source_order_id,
    o.customer_id,
    'high_value_bought',
    o.paid_at,
    :now,
    o.order_id,
    jsonb_build_object(
        'order_number', o.source_order_id, 'sku', l.sku, 'name', coalesce(p.name, l.description, ''), 'url', p.url, 'price', l.unit_price,
        'currency', s.currency
    ),
    true
from orders as o
inner join sources as s on o.source_id = s.source_id
inner join order_lines as l on o.order_id = l.order_id and l.counted and l.unit_price >= :worth
left join products as p on o.source_id = p.source_id and l.sku = p.sku
where
    o.paid_at <= :now
    and o.paid_at > cast(:now as timestamptz) - cast(:reach as interval)
    and o.placed_at > cast(:now as timestamptz) - cast(:reach as interval) - interval '30 days'
    and (o.cancelled_at is null or o.cancelled_at > :now)
    and o.customer_id is not null
    and o.marketplace is null
    and not o.gift
order by o.order_id, l.unit_price desc, l.line_key
on conflict do nothing
