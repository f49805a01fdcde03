-- erase_parcels: where an order goes, how it was paid, and pages that show whose it is.
--
-- reads   orders
-- writes  orders, shipments, returns
-- params  customers bigint[]
-- re-run  safe
with theirs as (
    select o.order_id from orders as o
    where o.customer_id = any(cast(:customers as bigint []))
),

unaddressed as (
    update orders as o
    set address = null, payment = null, url = null
    from theirs as t
    where o.order_id = t.order_id and num_nonnulls(o.address, o.payment, o.url) > 0
    returning o.order_id
),

untracked as (
    update shipments as p
    set tracking_url = null, tracking_number = null
    from theirs as t
    where p.order_id = t.order_id and num_nonnulls(p.tracking_url, p.tracking_number) > 0
    returning p.order_id
),

unlabelled as (
    update returns as r
    set label_url = null
    from theirs as t
    where r.order_id = t.order_id and r.label_url is not null
    returning r.order_id
)

select
    (select count(*) from unaddressed) as orders,
    (select count(*) from untracked) as shipments,
    (select count(*) from unlabelled) as returns
