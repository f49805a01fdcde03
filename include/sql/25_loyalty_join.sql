-- loyalty_join: who was told to have joined is a member; whose paid club was not renewed stays one, without paying.
--
-- reads   external_events, loyalty_memberships, customers, sources
-- writes  loyalty_memberships
-- params  now timestamptz, period interval
-- re-run  safe: one open membership for a customer
with told as (
    select distinct on (x.customer_id)
        x.customer_id,
        x.kind,
        x.at,
        case when x.detail ->> 'club' = 'paid' and cast(:period as interval) is not null then 'paid' else 'free' end as club,
        'told' as how
    from external_events as x
    where x.kind in ('loyalty_joined', 'loyalty_left') and x.at <= :now and x.known_at <= :now
    order by x.customer_id, x.at desc, x.event_key
),

lapsed as (
    select distinct on (m.customer_id)
        m.customer_id,
        'loyalty_joined' as kind,
        m.left_at as at,
        'free' as club,
        'the paid club was not renewed' as how
    from loyalty_memberships as m
    where m.left_why = 'not renewed'
    order by m.customer_id, m.left_at desc
),

wanted as (
    select distinct on (b.customer_id) b.*
    from (
        select * from told
        union all
        select * from lapsed
    ) as b
    order by b.customer_id, b.at desc
)

insert into loyalty_memberships (customer_id, kind, joined_at, known_at, how, renews_on)
select
    w.customer_id,
    w.club,
    w.at,
    :now,
    w.how,
    case when w.club = 'paid' then cast(cast(w.at at time zone s.time_zone as date) + cast(:period as interval) as date) end
from wanted as w
inner join customers as c on w.customer_id = c.customer_id
inner join sources as s on c.source_id = s.source_id
where
    w.kind = 'loyalty_joined'
    -- later than anything known of this person, by hand or told
    and not exists (
        select 1 from loyalty_memberships as m
        where m.customer_id = w.customer_id and (m.left_at is null or m.joined_at >= w.at or m.left_at > w.at)
    )
on conflict do nothing
