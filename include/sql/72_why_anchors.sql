-- why_anchors: the customer's newest orders and what speaks for or against an order campaign about them.
--
-- reads   orders, shipments, returns, reviews
-- params  customer bigint, exit_on jsonb, now timestamptz
-- re-run  safe: only reads
select
    o.source_order_id as number,
    o.placed_at,
    case
        -- a source that knows no deliveries at all: the order date stands for them, as at enrolment
        when exists (
            select 1 from shipments as p inner join orders as q on p.order_id = q.order_id where q.source_id = o.source_id
        ) then delivered_at(o.order_id, :now)
        else o.placed_at
    end as delivered_at,
    exit_fact(:exit_on, o.customer_id, o.order_id, o.placed_at, :now) as fact
from orders as o
where o.customer_id = :customer and o.placed_at < :now
order by o.placed_at desc
limit 5
