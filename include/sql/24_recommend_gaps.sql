-- recommend_gaps: after how many days the same customer buys an article of consumption again; the median of at least five gaps.
--
-- reads   orders, order_lines, products
-- writes  product_gaps
-- params  now timestamptz, categories text[]
-- re-run  safe: written anew
insert into product_gaps (source_id, sku, gap_days, gaps)
select
    g.source_id,
    g.sku,
    percentile_cont(0.5) within group (order by g.gap),
    count(*)
from (
    select
        b.source_id,
        b.sku,
        extract(epoch from b.counted_at - lag(b.counted_at) over (partition by b.source_id, b.sku, b.customer_id order by b.counted_at)) / 86400 as gap
    from (
        select distinct
            o.source_id,
            o.customer_id,
            o.counted_at,
            upper(p.sku) as sku
        from products as p
        inner join order_lines as l on p.sku = l.sku and l.counted
        inner join orders as o on l.order_id = o.order_id and p.source_id = o.source_id
        where
            p.category = any(cast(:categories as text []))
            and o.counted_at < :now
            and (o.cancelled_at is null or o.cancelled_at > :now)
            and not o.gift
    ) as b
) as g
where g.gap >= 1
group by g.source_id, g.sku
having count(*) >= 5
