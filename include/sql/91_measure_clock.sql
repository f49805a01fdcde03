-- measure_clock: do new orders come at the hours of the day at which this source's orders come? Times read in another zone
-- show as a profile that fits better once it is turned.
-- gain: how much better, in natural logarithms of likelihood per order, under the best shift in hours; above 1 only a shifted
-- clock is left (the days of a real shop stay below 0.7). Null with too few orders on either side.
--
-- reads   staging_<source>_orders, under the name staging_orders; orders, sources
-- writes  none
-- params  source text
-- re-run  safe: reads only
with accepted as (
    select source_order_id, placed_at from staging_orders where coalesce(cardinality(problems), 0) = 0
),

home as (
    select time_zone, complete_until from sources where source_id = :source and complete_until is not null
),

new_hours as (
    select
        cast(extract(hour from a.placed_at at time zone h.time_zone) as int) as hour,
        count(*) as orders
    from home as h
    cross join accepted as a
    where not exists (
        select from orders as o where o.source_id = :source and o.source_order_id = a.source_order_id
    )
    group by 1
),

past_hours as (
    select
        cast(extract(hour from o.placed_at at time zone h.time_zone) as int) as hour,
        count(*) as orders
    from home as h
    inner join orders as o
        on o.source_id = :source and o.placed_at > h.complete_until - interval '28 days' and o.placed_at <= h.complete_until
    group by 1
),

totals as (
    select
        (select sum(orders) from new_hours) as fresh,
        (select sum(orders) from past_hours) as past
),

fits as (
    select
        s.hours,
        sum(n.orders * ln((coalesce(p.orders, 0) + 0.5) / (t.past + 12))) / t.fresh as fit
    from totals as t
    cross join generate_series(-11, 12) as s (hours)
    cross join new_hours as n
    left join past_hours as p on p.hour = (n.hour - s.hours + 24) % 24
    where t.fresh >= 50 and t.past >= 200
    group by s.hours, t.fresh
),

best as (
    select hours, fit from fits where hours <> 0 order by fit desc, abs(hours) limit 1
)

select
    (select fresh from totals) as orders,
    (select hours from best) as shift_hours,
    round((select fit from best) - (select fit from fits where hours = 0), 3) as gain
