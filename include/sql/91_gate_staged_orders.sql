-- gate_staged_orders: the accepted orders of a delivery, before they are loaded.
--
-- reads   staging_<source>_orders, under the name staging_orders
-- writes  none
-- params  now timestamptz
-- re-run  safe: reads only
select
    source_order_id,
    source_customer_id,
    currency,
    placed_at,
    cancelled_at,
    cancelled_at is not null as cancelled,
    extract(epoch from cast(:now as timestamptz) - placed_at) / 86400 as placed_days_ago
from staging_orders
where coalesce(cardinality(problems), 0) = 0
