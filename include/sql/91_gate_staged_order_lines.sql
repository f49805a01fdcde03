-- gate_staged_order_lines: the accepted order lines of a delivery, before they are loaded. Shares of a handful of lines mean nothing,
-- so price and quantity are judged (`..._of_many`) from some lines on.
--
-- reads   staging_<source>_order_lines, under the name staging_order_lines
-- writes  none
-- params  now timestamptz, free_rows int
-- re-run  safe: reads only
select
    source_order_id,
    sku,
    quantity,
    unit_price,
    case when count(*) over () > cast(:free_rows as int) then quantity end as quantity_of_many,
    case when count(*) over () > cast(:free_rows as int) then unit_price end as unit_price_of_many,
    abs(quantity) as pieces,
    extract(epoch from cast(:now as timestamptz) - placed_at) / 86400 as placed_days_ago
from staging_order_lines
where coalesce(cardinality(problems), 0) = 0
