-- loyalty_entries: the newest entries of one customer.
--
-- reads   loyalty_ledger, orders
-- params  customer bigint, most int
-- re-run  safe: reads only
select
    l.entry_id,
    l.at,
    l.kind,
    l.points,
    sum(l.points) over (order by l.entry_id) as balance,
    o.source_order_id as order_number,
    l.expires_at,
    l.reason,
    l.by
from loyalty_ledger as l
left join orders as o on l.order_id = o.order_id
where l.customer_id = :customer
order by l.entry_id desc
limit :most
