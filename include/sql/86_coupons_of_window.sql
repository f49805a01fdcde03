-- coupons_of_window: coupon codes that left with a message, per day and pool.
--
-- reads   coupons
-- params  first timestamptz
-- re-run  safe: only reads
select
    cast(k.bound_at at time zone 'UTC' as date) as day,
    k.pool,
    count(*) as given
from coupons as k
where k.bound_at >= :first
group by 1, 2
order by 1, 2
