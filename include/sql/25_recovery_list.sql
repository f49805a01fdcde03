-- recovery_list: cases, the oldest open one first.
--
-- reads   recoveries, orders
-- params  everything boolean, customer bigint
-- re-run  safe: reads only
select
    r.recovery_id,
    r.customer_id,
    r.cause,
    o.source_order_id as order_number,
    r.score,
    r.opened_at,
    r.owner,
    r.make_good,
    r.resolved_at,
    r.resolved_by,
    r.resolution
from recoveries as r
left join orders as o on r.order_id = o.order_id
where (:everything or r.resolved_at is null) and (cast(:customer as bigint) is null or r.customer_id = :customer)
order by r.resolved_at is not null, r.opened_at, r.recovery_id
