-- recommend_bestsellers: what most orders of the last 90 days hold, by category and in the whole shop.
--
-- reads   orders, order_lines, products
-- writes  bestsellers
-- params  now timestamptz, most int
-- re-run  safe: written anew
with sold as (
    select
        p.source_id,
        p.sku,
        coalesce(p.category, '') as category,
        count(distinct o.order_id) as orders
    from orders as o
    inner join order_lines as l on o.order_id = l.order_id and l.counted
    inner join products as p on o.source_id = p.source_id and l.sku = p.sku
    where
        o.counted_at < :now
        and o.counted_at > cast(:now as timestamptz) - interval '90 days'
        and (o.cancelled_at is null or o.cancelled_at > :now)
    group by p.source_id, p.sku
),

placed as (
    select
        s.source_id,
        g.category,
        s.sku,
        s.orders,
        row_number() over (partition by s.source_id, g.category order by s.orders desc, s.sku) as place
    from sold as s
    cross join lateral (
        select '' as category
        union
        select s.category
    ) as g
)

insert into bestsellers (source_id, category, place, sku, orders)
select
    p.source_id,
    p.category,
    p.place,
    p.sku,
    p.orders
from placed as p
where p.place <= :most
