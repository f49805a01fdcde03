-- recommend_baskets: which articles are together in which order: the orders that hold an article in question, or all of them.
--
-- reads   orders, order_lines, articles_in_question
-- writes  baskets (temporary)
-- params  now timestamptz, everything boolean
-- re-run  safe: lives for one transaction
create temporary table baskets on commit drop as
with lines as (
    select distinct
        o.source_id,
        o.order_id,
        upper(l.sku) as sku
    from orders as o
    inner join order_lines as l on o.order_id = l.order_id
    where
        o.counted_at < :now
        and (o.cancelled_at is null or o.cancelled_at > :now)
        and l.counted
        and l.sku is not null
)

select
    b.source_id,
    b.order_id,
    b.sku,
    :everything or q.sku is not null as asked
from lines as b
left join articles_in_question as q on b.source_id = q.source_id and b.sku = q.sku
where
    :everything
    or b.order_id in (
        select c.order_id
        from lines as c
        inner join articles_in_question as p on c.source_id = p.source_id and c.sku = p.sku
    )
