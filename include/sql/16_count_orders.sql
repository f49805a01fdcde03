-- count_orders: when and for how much the delivered orders count.
--
-- reads   chosen_orders, keyed_lines, order_lines
-- writes  orders.counted_at, orders.counted_amount
-- params  source text, monetary text
-- re-run  safe: an unchanged result is not written
with touched as (
    select o.order_id
    from chosen_orders as c
    inner join orders as o on o.source_id = :source and o.source_order_id = c.source_order_id
    union
    select order_id from keyed_lines
),

lines as (
    select
        l.order_id,
        min(l.placed_at) as first_at,
        sum(l.quantity * l.unit_price) as amount
    from order_lines as l
    where l.counted and l.order_id in (select t.order_id from touched as t)
    group by l.order_id
),

counts as (
    select
        o.order_id,
        -- where the paid amount is what counts, an order whose lines were not delivered counts too
        case
            when o.customer_id is null then null
            when :monetary = 'paid' then coalesce(l.first_at, o.placed_at)
            else l.first_at
        end as counted_at,
        case when :monetary = 'paid' then coalesce(o.paid_amount, 0) else l.amount end as amount
    from touched as t
    inner join orders as o on o.order_id = t.order_id
    left join lines as l on l.order_id = t.order_id
)

update orders as o
set counted_at = c.counted_at, counted_amount = case when c.counted_at is not null then c.amount end
from counts as c
where
    o.order_id = c.order_id
    and (o.counted_at, o.counted_amount)
    is distinct from (c.counted_at, case when c.counted_at is not null then c.amount end)
