-- measure_prices: the articles of a delivery beside the same articles in the source's 28 days before: swapped columns, cents
-- for euros and another currency all show as a median ratio far from 1. Null with fewer than ten articles in common.
--
-- reads   staging_<source>_order_lines, under the name staging_order_lines; orders, order_lines, sources
-- writes  none
-- params  source text
-- re-run  safe: reads only
with told as (
    select
        sku,
        percentile_cont(0.5) within group (order by unit_price) as price,
        percentile_cont(0.5) within group (order by quantity) as quantity
    from staging_order_lines
    where coalesce(cardinality(problems), 0) = 0 and sku is not null and quantity > 0 and unit_price > 0
    group by sku
),

before as (
    select
        l.sku,
        percentile_cont(0.5) within group (order by l.unit_price) as price,
        percentile_cont(0.5) within group (order by l.quantity) as quantity
    from sources as s
    inner join orders as o on s.source_id = o.source_id and o.placed_at > s.complete_until - interval '28 days'
    inner join order_lines as l on o.order_id = l.order_id
    where s.source_id = :source and l.counted
    group by l.sku
)

select
    count(*) as articles,
    case
        when count(*) >= 10 then round(cast(percentile_cont(0.5) within group (order by t.price / b.price) as numeric), 3)
    end as price_ratio,
    case
        when count(*) >= 10 then round(cast(percentile_cont(0.5) within group (order by t.quantity / b.quantity) as numeric), 3)
    end as quantity_ratio
from told as t
inner join before as b on t.sku = b.sku
