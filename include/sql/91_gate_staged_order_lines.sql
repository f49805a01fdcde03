-- gate_staged_order_lines: the accepted order lines of a delivery, before they are loaded.
--
-- reads   staging_<source>_order_lines, under the name staging_order_lines
-- writes  none
-- params  now timestamptz
-- re-run  safe: reads only
select
    source_order_id,
    sku,
    quantity,
    unit_price,
    abs(quantity) as pieces,
    extract(epoch from cast(:now as timestamptz) - placed_at) / 86400 as placed_days_ago
from staging_order_lines
where coalesce(cardinality(problems), 0) = 0
