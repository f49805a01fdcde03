-- measure_known: what a delivery says about orders and customers that are known already. Nobody's order moves to another
-- time of day, and few people change their address on one day. Shares of fewer than `enough` are null.
--
-- reads   staging_<source>_orders, staging_<source>_customers, under the names staging_orders, staging_customers;
--         orders, customers
-- writes  none
-- params  source text, enough int
-- re-run  safe: reads only
with told as (
    select source_order_id, placed_at from staging_orders where coalesce(cardinality(problems), 0) = 0
),

met as (
    select
        count(*) as orders,
        count(*) filter (where abs(extract(epoch from t.placed_at - o.placed_at)) > 600) as moved
    from told as t
    inner join orders as o on o.source_id = :source and o.source_order_id = t.source_order_id
),

people as (
    select
        source_customer_id,
        email,
        first_name
    from staging_customers
    where coalesce(cardinality(problems), 0) = 0
),

addresses as (
    select
        count(*) as people,
        count(*) filter (where email is not null) as told,
        count(*) filter (where email !~ '^[^@\s]+@[^@\s]+$') as unusable,
        -- UTF-8 read as Latin-1, or a letter that somebody upstream could not read
        count(*) filter (where concat(first_name, email) ~ '[\u00c2\u00c3][\u0080-\u00bf]|\ufffd') as garbled
    from people
),

changed as (
    select
        count(*) as people,
        count(*) filter (where lower(btrim(p.email)) <> lower(btrim(c.email))) as changed
    from people as p
    inner join customers as c on c.source_id = :source and c.source_customer_id = p.source_customer_id
    where p.email is not null and c.email is not null
)

select
    m.orders as known_orders,
    case when m.orders >= :enough then round(m.moved / cast(m.orders as numeric), 4) end as moved_share,
    c.people as known_customers,
    case when c.people >= :enough then round(c.changed / cast(c.people as numeric), 4) end as changed_address_share,
    case when a.told >= :enough then round(a.unusable / cast(a.told as numeric), 4) end as unusable_address_share,
    case when a.people >= :enough then round(a.garbled / cast(a.people as numeric), 4) end as garbled_share
from met as m
cross join addresses as a
cross join changed as c
