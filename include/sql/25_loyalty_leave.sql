-- loyalty_leave: memberships end that were left as told, that changed between the free and the paid club, or that nobody renewed.
--
-- reads   external_events, customers, sources
-- writes  loyalty_memberships: left
-- params  now timestamptz, grace interval
-- re-run  safe: an ended membership stays ended
with told as (
    select distinct on (x.customer_id)
        x.customer_id,
        x.kind,
        x.at,
        case when x.detail ->> 'club' = 'paid' then 'paid' else 'free' end as club
    from external_events as x
    where x.kind in ('loyalty_joined', 'loyalty_left') and x.at <= :now and x.known_at <= :now
    order by x.customer_id, x.at desc, x.event_key
)

update loyalty_memberships as m
set
    left_at = e.at,
    left_why = e.why
from (
    select
        o.customer_id,
        o.joined_at,
        case
            when t.kind = 'loyalty_left' and t.at >= o.joined_at then t.at
            when t.kind = 'loyalty_joined' and t.at > o.joined_at and t.club <> o.kind then t.at
            else local_instant(o.renews_on + cast(cast(:grace as interval) + interval '1 day' as interval) + time '00:00', s.time_zone)
        end as at,
        case
            when t.kind = 'loyalty_left' and t.at >= o.joined_at then 'told'
            when t.kind = 'loyalty_joined' and t.at > o.joined_at and t.club <> o.kind then 'changed'
            else 'not renewed'
        end as why
    from loyalty_memberships as o
    inner join customers as c on o.customer_id = c.customer_id
    inner join sources as s on c.source_id = s.source_id
    left join told as t on o.customer_id = t.customer_id
    where o.left_at is null
) as e
where
    m.customer_id = e.customer_id
    and m.joined_at = e.joined_at
    and m.left_at is null
    and e.at <= :now
