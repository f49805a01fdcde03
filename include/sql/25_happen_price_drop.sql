-- happen_price_drop: who watches a product is told when its price has fallen far enough below what it was.
--
-- reads   product_changes, products, external_events, orders, order_lines, sources
-- writes  external_events
-- params  now timestamptz, reach interval, percent numeric
-- re-run  safe: named by product, change and customer
insert into external_events (source_id, event_key, customer_id, kind, at, known_at, order_id, detail, worked_out)
with dropped as (
    select distinct on (c.source_id, c.sku)
        c.change_id,
        c.source_id,
        c.sku,
        c.at,
        c.was,
        c.now as price
    from product_changes as c
    where c.what = 'price' and c.known_at <= :now and c.at > cast(:now as timestamptz) - cast(:reach as interval)
    order by c.source_id, c.sku, c.at desc, c.change_id desc
)

select
    d.source_id,
    'postlude:price_drop:' || d.change_id || ':' || x.customer_id,
    x.customer_id,
    'price_drop',
    d.at,
    :now,
    null,
    jsonb_build_object(
        'sku', p.sku, 'name', p.name, 'url', p.url, 'image_url', p.image_url, 'category', coalesce(p.category, ''), 'price', d.price,
        'currency', s.currency, 'was', d.was, 'percent', floor(100 * (d.was - d.price) / d.was),
        'waiting_since', cast(min(x.at) at time zone s.time_zone as date)
    ),
    true
from dropped as d
inner join products as p on d.source_id = p.source_id and d.sku = p.sku
inner join sources as s on d.source_id = s.source_id
inner join external_events as x
    on d.source_id = x.source_id and x.kind = 'product_watched' and upper(x.detail ->> 'sku') = upper(d.sku)
where
    p.in_stock is not false
    and p.price = d.price
    and d.price <= d.was * (1 - cast(:percent as numeric) / 100)
    and x.at <= d.at
    and x.at > d.at - interval '366 days'
    and coalesce(x.detail ->> 'wants', 'price_drop') = 'price_drop'
    and not bought_since(x.customer_id, d.sku, x.at, :now)
group by d.change_id, d.source_id, d.sku, d.at, d.was, d.price, x.customer_id, p.source_id, p.sku, s.source_id
on conflict do nothing
