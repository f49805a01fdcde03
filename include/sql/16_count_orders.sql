-- count_orders: when and for how much the delivered orders count; new ones were stored with it.
--
-- reads   chosen_orders, keyed_lines, order_lines
-- writes  orders.counted_at, orders.counted_amount
-- params  monetary text
-- re-run  safe: an unchanged result is not written
with touched as (
    select c.order_id
    from chosen_orders as c
    where c.verdict <> 'new'
    union
    select k.order_id
    from keyed_lines as k
    where not exists (select from chosen_orders as c where c.order_id = k.order_id and c.verdict = 'new')
),

counts as (
    select
        t.order_id,
        l.first_at,
        l.amount
    from touched as t
    cross join lateral (
        select
            min(o.placed_at) as first_at,
            sum(o.quantity * o.unit_price) as amount
        from order_lines as o
        where o.order_id = t.order_id and o.counted
    ) as l
)

update orders as o
set
    counted_at = w.counted_at,
    counted_amount = case when w.counted_at is not null then w.amount end
from counts as c
cross join lateral (
    select
        -- where the paid amount is what counts, an order whose lines were not delivered counts too
        case
            when p.customer_id is null then null
            when :monetary = 'paid' then coalesce(c.first_at, p.placed_at)
            else c.first_at
        end as counted_at,
        case when :monetary = 'paid' then coalesce(p.paid_amount, 0) else c.amount end as amount
    from orders as p
    where p.order_id = c.order_id
) as w
where
    o.order_id = c.order_id
    and (o.counted_at, o.counted_amount)
    is distinct from (w.counted_at, case when w.counted_at is not null then w.amount end)
