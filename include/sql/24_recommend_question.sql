-- recommend_question: the articles to count anew: those in orders that changed since the last count, and in orders that began or ceased
-- to count by time alone.
--
-- reads   orders, order_lines
-- writes  articles_in_question (temporary); touched_products: emptied
-- params  before timestamptz, now timestamptz
-- re-run  safe: without changes there are none
with taken as (
    delete from touched_products
    returning source_id, sku
)

insert into articles_in_question (source_id, sku)
select t.source_id, t.sku
from taken as t
union
select o.source_id, upper(l.sku)
from orders as o
inner join order_lines as l on o.order_id = l.order_id
where
    l.sku is not null
    and (
        (o.counted_at >= :before and o.counted_at < :now)
        or (o.cancelled_at > :before and o.cancelled_at <= :now and o.counted_at is not null)
    )
