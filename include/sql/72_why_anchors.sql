-- why_anchors: the customer's newest orders and what speaks for or against an order campaign about them.
--
-- reads   orders, returns, reviews
-- params  customer bigint, exit_on jsonb, now timestamptz
-- re-run  safe: only reads
select
    o.order_id,
    o.source_order_id as number,
    exit_fact(:exit_on, o.customer_id, o.order_id, o.placed_at, :now) as fact
from orders as o
where o.customer_id = :customer and o.placed_at < :now
order by o.placed_at desc
limit 5
