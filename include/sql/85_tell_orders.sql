-- tell_orders: on the copy of a simulation: drawn orders that were placed by now, with lines and parcels like those of an earlier one.
--
-- reads   future_orders, orders, order_lines, shipments
-- writes  orders, order_lines, shipments; future_orders: told
-- params  now timestamptz
-- re-run  safe: told once
with due as (
    update future_orders as f
    set told = true
    where not f.told and f.placed_at < :now
    returning f.customer_id, f.nth, f.placed_at, f.like_order
),

placed as (
    insert into orders (
        source_id, source_order_id, customer_id, currency, status, placed_at, paid_at, promised_on, paid_amount, gift, updated_at, known_at,
        counted_at, counted_amount
    )
    select
        o.source_id, 'simulated-' || d.customer_id || '-' || d.nth, d.customer_id, o.currency, o.status, d.placed_at, d.placed_at,
        cast(d.placed_at + (o.promised_on - o.placed_at) as date), o.paid_amount, o.gift, d.placed_at, :now, d.placed_at, o.counted_amount
    from due as d
    inner join orders as o on d.like_order = o.order_id
    returning order_id, source_order_id, placed_at
),

numbered as (
    select p.order_id, p.placed_at, d.like_order, o.placed_at as then_at
    from due as d
    inner join placed as p on 'simulated-' || d.customer_id || '-' || d.nth = p.source_order_id
    inner join orders as o on d.like_order = o.order_id
),

lines as (
    insert into order_lines (order_id, line_key, sku, description, quantity, unit_price, placed_at)
    select n.order_id, l.line_key, l.sku, l.description, l.quantity, l.unit_price, n.placed_at
    from numbered as n
    inner join order_lines as l on n.like_order = l.order_id
)

insert into shipments (order_id, shipment_key, carrier, shipped_at, eta, delivered_at)
select
    n.order_id, s.shipment_key, s.carrier, n.placed_at + (s.shipped_at - n.then_at), cast(n.placed_at + (s.eta - n.then_at) as date),
    n.placed_at + (s.delivered_at - n.then_at)
from numbered as n
inner join shipments as s on n.like_order = s.order_id
