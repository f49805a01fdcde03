-- candidates_of_occasion: on a day of the calendar (or so many days before it), everybody, or the members of some segments.
-- The day begins at midnight on the customer's clock.
-- customer: this one only; null: everybody.
--
-- reads   customers, segment_memberships, sources, time_zones
-- writes  candidates (temporary)
-- params  occasion text, dates date[], days_before int, within text[], now timestamptz, max_age interval, once_per text, customer bigint
-- re-run  safe: lives for one transaction
create temporary table candidates on commit drop as
with zones as (
    -- few instants instead of one for each customer
    select
        s.source_id,
        z.zone as own,
        d.day,
        local_instant(d.day - cast(:days_before as int) + time '00:00', coalesce(z.zone, s.time_zone)) as anchor_at
    from sources as s
    cross join (
        select t.zone from time_zones as t
        union all
        select null
    ) as z
    cross join unnest(cast(:dates as date [])) as d (day)
    where
        d.day between cast((cast(:now as timestamptz) - cast(:max_age as interval)) at time zone 'UTC' as date) - 1 + cast(:days_before as int)
        and cast(cast(:now as timestamptz) at time zone 'UTC' as date) + 1 + cast(:days_before as int)
)

select
    c.customer_id,
    cast(null as bigint) as order_id,
    case cast(:once_per as text) when 'customer' then 'once' else 'occasion:' || cast(:occasion as text) || ':' || i.day end as anchor_key,
    i.anchor_at,
    i.anchor_at as watch_from,
    c.source_id,
    cast(null as text) as objection
from customers as c
left join time_zones as z on c.time_zone = z.zone
inner join zones as i on c.source_id = i.source_id and i.own is not distinct from z.zone
where
    c.merged_into is null
    and (cast(:customer as bigint) is null or c.customer_id = cast(:customer as bigint))
    and i.anchor_at <= :now
    and i.anchor_at > cast(:now as timestamptz) - cast(:max_age as interval)
    and (
        cast(:within as text []) = '{}'
        or exists (
            select 1 from segment_memberships as m
            where m.customer_id = c.customer_id and m.left_at is null and m.segment_id = any(cast(:within as text []))
        )
    )
