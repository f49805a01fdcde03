-- count_feed_days: how many orders, reviews and returns each day of the shop has, for the days this load touched.
-- Days more than ten weeks before the watermark are nobody's measure and are not counted: a first load stays cheap.
--
-- reads   staging_orders, staging_reviews, staging_returns, sources, orders, reviews, returns
-- writes  feed_days
-- params  source text, now timestamptz
-- re-run  safe: each day is counted anew
insert into feed_days as f (source_id, entity, day, rows, newest, counted_at)
with shop as (
    select
        s.source_id,
        s.time_zone,
        s.complete_until - interval '70 days' as since,
        cast(:now as timestamptz) + interval '10 minutes' as until
    from sources as s
    where s.source_id = :source
),

delivered as (
    select 'orders' as entity, placed_at as at from staging_orders where cardinality(problems) = 0
    union all
    select 'reviews', created_at from staging_reviews where cardinality(problems) = 0
    union all
    select 'returns', requested_at from staging_returns where cardinality(problems) = 0
),

touched as (
    select distinct d.entity, cast(d.at at time zone s.time_zone as date) as day
    from delivered as d
    cross join shop as s
    where d.at > s.since and d.at <= s.until
),

spans as (
    select
        t.entity,
        t.day,
        cast(t.day as timestamp) at time zone s.time_zone as starts,
        least(cast(t.day + 1 as timestamp) at time zone s.time_zone, s.until) as ends
    from touched as t
    cross join shop as s
),

counted as (
    select p.entity, p.day, count(*) as rows, max(o.placed_at) as newest
    from spans as p
    inner join orders as o on o.source_id = :source and o.placed_at >= p.starts and o.placed_at < p.ends
    where p.entity = 'orders'
    group by p.entity, p.day
    union all
    select p.entity, p.day, count(*), max(r.created_at)
    from spans as p
    inner join reviews as r on r.created_at >= p.starts and r.created_at < p.ends
    inner join orders as o on r.order_id = o.order_id and o.source_id = :source
    where p.entity = 'reviews'
    group by p.entity, p.day
    union all
    select p.entity, p.day, count(*), max(r.requested_at)
    from spans as p
    inner join returns as r on r.requested_at >= p.starts and r.requested_at < p.ends
    inner join orders as o on r.order_id = o.order_id and o.source_id = :source
    where p.entity = 'returns'
    group by p.entity, p.day
)

select :source, c.entity, c.day, c.rows, c.newest, :now
from counted as c
on conflict (source_id, entity, day) do update
    set rows = excluded.rows, newest = excluded.newest, counted_at = excluded.counted_at
