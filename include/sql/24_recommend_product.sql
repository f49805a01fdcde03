-- recommend_product: what goes with one article, with the reason.
--
-- reads   recommendations, products, product_orders
-- params  sku text
-- re-run  safe: reads only
select
    r.source_id as source,
    r.kind,
    r.place,
    p.sku,
    p.name,
    p.category,
    p.in_stock,
    r.orders,
    o.orders as of_orders,
    r.score
from recommendations as r
inner join product_orders as o on r.source_id = o.source_id and r.sku = o.sku
cross join lateral (
    select q.*
    from products as q
    where q.source_id = r.source_id and upper(q.sku) = r.other
    order by q.updated_at desc nulls last, q.sku
    limit 1
) as p
where r.sku = upper(cast(:sku as text))
order by r.source_id, r.kind desc, r.place
