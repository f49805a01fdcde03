-- gate_feature_counts: customers with features beside customers with counted orders, as of the features' own instant.
--
-- reads   customer_features, feature_state, orders
-- writes  none
-- params  now timestamptz
-- re-run  safe: reads only
select
    s.as_of,
    extract(epoch from cast(:now as timestamptz) - s.as_of) / 3600 as age_hours,
    (select count(*) from customer_features) as customers,
    (
        select count(distinct o.customer_id) from orders as o
        where o.counted_at < s.as_of and (o.cancelled_at is null or o.cancelled_at > s.as_of)
    ) as counted_customers
from feature_state as s
