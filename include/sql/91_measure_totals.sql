-- measure_totals: do the orders of a delivery and their lines add up? Shares of fewer than `enough` are null.
-- negative: orders that are no cancellation and come to less than nothing. lineless: of the new orders, when lines came too.
-- twice: lines without a number of their own that say the same as another one of the same file.
--
-- reads   staging_<source>_orders, staging_<source>_order_lines, under the names staging_orders, staging_order_lines; orders
-- writes  none
-- params  source text, enough int
-- re-run  safe: reads only
with told as (
    select source_order_id, cancelled_at from staging_orders where coalesce(cardinality(problems), 0) = 0
),

lines as (
    select
        source_order_id,
        bool_or(coalesce(cardinality(problems), 0) = 0) as good,
        sum(quantity * unit_price) filter (where coalesce(cardinality(problems), 0) = 0) as amount,
        count(*) as lines,
        count(*) - count(distinct row(_file, coalesce(line_key, ''), sku, quantity, unit_price, placed_at, description)) as twice
    from staging_order_lines
    group by source_order_id
),

sums as (
    select
        count(*) filter (where l.good and t.cancelled_at is null) as with_lines,
        count(*) filter (where l.amount < 0 and t.cancelled_at is null) as negative,
        count(*) filter (where o.order_id is null and t.cancelled_at is null) as fresh,
        count(*) filter (where o.order_id is null and t.cancelled_at is null and l.source_order_id is null) as lineless
    from told as t
    left join lines as l on l.source_order_id = t.source_order_id
    left join orders as o on o.source_id = :source and o.source_order_id = t.source_order_id
),

all_lines as (
    select
        coalesce(sum(lines), 0) as lines,
        coalesce(sum(twice), 0) as twice
    from lines
)

select
    s.with_lines as orders_with_lines,
    case when s.with_lines >= :enough then round(s.negative / cast(s.with_lines as numeric), 4) end as negative_share,
    case when s.fresh >= :enough and a.lines > 0 then round(s.lineless / cast(s.fresh as numeric), 4) end as lineless_share,
    case when a.lines >= :enough then round(a.twice / a.lines, 4) end as twice_share
from sums as s
cross join all_lines as a
