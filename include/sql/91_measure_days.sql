-- measure_days: orders of each day a delivery completes, beside the median of the same weekday over the 28 days before.
-- The last seven such days; a day is complete once a time of grace has passed on the shop's clock. Days the source file
-- calls quiet are left out. A new source has no past and gives no rows.
--
-- reads   staging_<source>_orders, under the name staging_orders; orders, sources
-- writes  none
-- params  source text, now timestamptz, grace_seconds int, enough int
-- re-run  safe: reads only
with accepted as (
    select source_order_id, placed_at from staging_orders where coalesce(cardinality(problems), 0) = 0
),

home as (
    select
        s.time_zone,
        s.settings,
        cast(s.complete_until at time zone s.time_zone as date) as since,
        least(
            -- a run that brought nothing completes no day; least() would pass over a null
            coalesce(cast((select max(a.placed_at) from accepted as a) at time zone s.time_zone as date), date '-infinity'),
            cast((cast(:now as timestamptz) - make_interval(secs => cast(:grace_seconds as int))) at time zone s.time_zone as date) - 1
        ) as until,
        cast((select min(o.placed_at) from orders as o where o.source_id = :source) at time zone s.time_zone as date) as began
    from sources as s
    where s.source_id = :source and s.complete_until is not null
),

judged as (
    select
        cast(g.day as date) as day,
        h.began
    from home as h
    cross join lateral generate_series(greatest(h.since, h.until - 6), h.until, interval '1 day') as g (day)
    where not coalesce(
        h.settings -> 'quiet_days' ? to_char(g.day, 'YYYY-MM-DD') or h.settings -> 'quiet_days' ? to_char(g.day, 'MM-DD'), false
    )
),

reach as (
    select
        h.time_zone,
        cast(greatest(h.since, h.until - 6) - 28 as timestamp) at time zone h.time_zone as low
    from home as h
),

known as (
    select
        o.source_order_id,
        cast(o.placed_at at time zone r.time_zone as date) as day
    from reach as r
    inner join orders as o on o.source_id = :source and o.placed_at >= r.low
    union
    select
        a.source_order_id,
        cast(a.placed_at at time zone r.time_zone as date)
    from reach as r
    inner join accepted as a on a.placed_at >= r.low
),

counts as (
    select
        day,
        count(distinct source_order_id) as orders
    from known
    group by day
),

compared as (
    select
        j.day,
        coalesce((select c.orders from counts as c where c.day = j.day), 0) as orders,
        (
            select case when count(*) >= 3 then percentile_cont(0.5) within group (order by coalesce(c.orders, 0)) end
            from generate_series(7, 28, 7) as back (days)
            left join counts as c on c.day = j.day - back.days
            where j.day - back.days >= j.began
        ) as usual
    from judged as j
)

select
    cast(day as text) as day,
    orders,
    usual,
    case when usual >= :enough then round(cast(orders / usual as numeric), 3) end as share_of_usual
from compared
order by day
