-- gate_staged_orders: the accepted orders of a delivery, before they are loaded. Shares of a handful of orders mean nothing (a pull
-- of one cancelled order is a pull of cancelled orders only), so `known_customer` and `cancelled` are judged from some orders on.
--
-- reads   staging_<source>_orders, under the name staging_orders
-- writes  none
-- params  now timestamptz, free_rows int
-- re-run  safe: reads only
select
    source_order_id,
    source_customer_id,
    currency,
    placed_at,
    cancelled_at,
    case when count(*) over () > cast(:free_rows as int) then source_customer_id else coalesce(source_customer_id, '') end as known_customer,
    cancelled_at is not null and count(*) over () > cast(:free_rows as int) as cancelled,
    extract(epoch from cast(:now as timestamptz) - placed_at) / 86400 as placed_days_ago
from staging_orders
where coalesce(cardinality(problems), 0) = 0
