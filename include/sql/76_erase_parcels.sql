-- erase_parcels: a parcel's page shows whose it is.
--
-- reads   orders
-- writes  shipments
-- params  customers bigint[]
-- re-run  safe
with cleared as (
    update shipments as p
    set tracking_url = null
    from orders as o
    where p.order_id = o.order_id and o.customer_id = any(cast(:customers as bigint [])) and p.tracking_url is not null
    returning p.order_id
)

select count(*) as shipments from cleared
