-- merge_orders: new orders, with when and for how much they count, and newer versions of known ones.
-- All lines of a new order are in keyed_lines, so it is written once; count_orders sees to the others.
--
-- reads   chosen_orders, keyed_lines, staging_orders, customer_identities
-- writes  orders
-- params  source text, monetary text, now timestamptz
-- re-run  safe: an older or equal version changes nothing
with lines as (
    select
        order_id,
        min(placed_at) as first_at,
        sum(quantity * unit_price) as amount
    from keyed_lines
    where quantity > 0 and unit_price > 0
    group by order_id
)

insert into orders as o (
    order_id, source_id, source_order_id, customer_id, currency, status, placed_at, paid_at, cancelled_at, promised_on, paid_amount,
    marketplace, gift, updated_at, known_at, source_customer_id,
    counted_at, counted_amount, shipping_amount, discount_amount, tax_amount, payment, address, url
)
select
    c.order_id,
    :source,
    s.source_order_id,
    i.customer_id,
    s.currency,
    s.status,
    c.placed_at,
    s.paid_at,
    s.cancelled_at,
    s.promised_on,
    s.paid_amount,
    s.marketplace,
    coalesce(s.gift, false),
    s.updated_at,
    :now,
    s.source_customer_id,
    w.counted_at,
    case when w.counted_at is not null then case when :monetary = 'paid' then coalesce(s.paid_amount, 0) else l.amount end end,
    s.shipping_amount,
    s.discount_amount,
    s.tax_amount,
    s.payment,
    s.address,
    s.url
from chosen_orders as c
inner join staging_orders as s on s._row = c.chosen_row
left join customer_identities as i on i.source_id = :source and i.source_customer_id = s.source_customer_id
left join lines as l on l.order_id = c.order_id
cross join lateral (
    -- where the paid amount is what counts, an order whose lines were not delivered counts too
    select
        case
            when i.customer_id is null then null
            when :monetary = 'paid' then coalesce(l.first_at, c.placed_at)
            else l.first_at
        end as counted_at
) as w
where c.verdict in ('new', 'newer')
order by c.placed_at, s.source_order_id collate "C"
on conflict (source_id, source_order_id) do update set
    -- an order that had its customer keeps it: a part of it without the customer's name does not make it nobody's
    customer_id = coalesce(excluded.customer_id, o.customer_id),
    source_customer_id = coalesce(excluded.source_customer_id, o.source_customer_id),
    currency = excluded.currency,
    status = excluded.status,
    placed_at = excluded.placed_at,
    paid_at = excluded.paid_at,
    cancelled_at = excluded.cancelled_at,
    promised_on = excluded.promised_on,
    paid_amount = excluded.paid_amount,
    marketplace = excluded.marketplace,
    gift = excluded.gift,
    shipping_amount = excluded.shipping_amount,
    discount_amount = excluded.discount_amount,
    tax_amount = excluded.tax_amount,
    payment = excluded.payment,
    address = excluded.address,
    url = excluded.url,
    updated_at = excluded.updated_at
where
    (
        o.customer_id, o.currency, o.status, o.placed_at, o.paid_at, o.cancelled_at, o.promised_on, o.paid_amount,
        o.marketplace, o.gift, o.updated_at, o.shipping_amount, o.discount_amount, o.tax_amount, o.payment, o.address, o.url
    ) is distinct from (
        coalesce(excluded.customer_id, o.customer_id), excluded.currency, excluded.status, excluded.placed_at,
        excluded.paid_at, excluded.cancelled_at, excluded.promised_on, excluded.paid_amount, excluded.marketplace,
        excluded.gift, excluded.updated_at, excluded.shipping_amount, excluded.discount_amount, excluded.tax_amount,
        excluded.payment, excluded.address, excluded.url
    )
