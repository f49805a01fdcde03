-- candidates_of_date: customers whose birthday, anniversary of the first order, or renewal lies (so many days ahead) in reach.
-- The day begins at midnight on the customer's clock; 29 February is kept on 28 February in other years.
-- customer: this one only; null: everybody.
--
-- reads   customers, customer_facts, sources, time_zones
-- writes  candidates (temporary)
-- params  date_of text, days_before int, now timestamptz, max_age interval, once_per text, customer bigint
-- re-run  safe: lives for one transaction
create temporary table candidates on commit drop as
with days as (
    -- only the days that can be in reach, in whatever zone: nobody else is looked at closer
    select cast(d as date) as day
    from generate_series(
        cast((cast(:now as timestamptz) - cast(:max_age as interval)) at time zone 'UTC' as date) - 1 + cast(:days_before as int),
        cast(cast(:now as timestamptz) at time zone 'UTC' as date) + 1 + cast(:days_before as int),
        interval '1 day'
    ) as g (d)
),

-- what comes back on one of them began on one of these, by the clock of UTC and of whoever else; 29 February stands behind the 28th
beginnings as materialized (
    select distinct cast(y.day - make_interval(years => k) as date) + o as day
    from days as y
    cross join generate_series(
        1,
        case
            when cast(:date_of as text) = 'birthday' then
                1 + cast(extract(year from cast(:now as timestamptz)) - extract(year from (select min(c.birthday) from customers as c)) as int)
            else 100
        end
    ) as k
    cross join generate_series(-1, 2) as o
    where cast(:date_of as text) <> 'renewal'
),

beginners as (
    select
        c.customer_id,
        c.birthday as began,
        cast(null as timestamptz) as ordered_at
    from beginnings as b
    inner join customers as c on b.day = c.birthday
    where cast(:date_of as text) = 'birthday' and (cast(:customer as bigint) is null or c.customer_id = cast(:customer as bigint))
    union all
    select
        c.customer_id,
        c.renews_on,
        null
    from days as y
    inner join customers as c on y.day = c.renews_on
    where cast(:date_of as text) = 'renewal' and (cast(:customer as bigint) is null or c.customer_id = cast(:customer as bigint))
    union all
    select
        f.customer_id,
        null,
        f.first_order_at
    from customer_facts as f
    where
        cast(:date_of as text) not in ('birthday', 'renewal')
        and (cast(:customer as bigint) is null or f.customer_id = cast(:customer as bigint))
        and cast(f.first_order_at at time zone 'UTC' as date) in (select b.day from beginnings as b)
),

dated as (
    select
        c.customer_id,
        c.source_id,
        c.birthday,
        coalesce(z.zone, s.time_zone) as zone,
        coalesce(x.began, cast(x.ordered_at at time zone coalesce(z.zone, s.time_zone) as date)) as began
    from beginners as x
    inner join customers as c on x.customer_id = c.customer_id
    inner join sources as s on c.source_id = s.source_id
    left join time_zones as z on c.time_zone = z.zone
    where c.merged_into is null
),

returning_days as (
    select
        b.*,
        y.day
    from dated as b
    inner join days as y
        on case cast(:date_of as text)
            when 'renewal' then b.began = y.day
            else
                y.day > b.began
                and y.day = cast(b.began + make_interval(years => cast(extract(year from y.day) - extract(year from b.began) as int)) as date)
        end
),

anchored as (
    select
        r.*,
        local_instant(r.day - cast(:days_before as int) + time '00:00', r.zone) as anchor_at
    from returning_days as r
),

-- only a birthday on 1 January is doubted: on other days nobody else's is looked at
shares as (
    select
        c.source_id,
        count(*) as told,
        count(*) filter (where to_char(c.birthday, 'MMDD') = '0101') as on_new_year
    from customers as c
    where
        c.birthday is not null
        and cast(:date_of as text) = 'birthday'
        and c.source_id in (select a.source_id from anchored as a where to_char(a.birthday, 'MMDD') = '0101')
    group by c.source_id
)

select
    a.customer_id,
    cast(null as bigint) as order_id,
    case cast(:once_per as text) when 'customer' then 'once' else cast(:date_of as text) || ':' || a.day end as anchor_key,
    a.anchor_at,
    a.anchor_at as watch_from,
    a.source_id,
    case
        when cast(:date_of as text) = 'birthday' and not birthday_believed(a.birthday, s.on_new_year, s.told, :now) then 'birthday_not_believed'
    end as objection
from anchored as a
left join shares as s on a.source_id = s.source_id
where a.anchor_at <= :now and a.anchor_at > cast(:now as timestamptz) - cast(:max_age as interval)
