-- find_person: people answering to an id, a source's customer id, an e-mail address or a number; one row for each person.
--
-- reads   customers, customer_identities, recipients, customer_features
-- params  wanted text
-- re-run  safe: only reads
with hits as (
    select c.customer_id from customers as c
    where c.customer_id = case when :wanted ~ '^[0-9]{1,18}$' then cast(:wanted as bigint) end
    union
    select c.customer_id from customers as c where c.source_customer_id = :wanted
    union
    select c.customer_id from customers as c where c.address = lower(normalize(btrim(:wanted), nfkc))
    union
    select c.customer_id from customers as c where c.phone = :wanted
),

people as (
    select distinct coalesce(c.merged_into, c.customer_id) as customer_id
    from hits as h
    inner join customers as c on h.customer_id = c.customer_id
    order by 1
    limit 20
)

select
    c.customer_id,
    c.source_id,
    c.source_customer_id,
    c.email,
    c.phone,
    c.first_name,
    c.last_name,
    c.locale,
    c.marketplace,
    c.created_at,
    c.known_at,
    c.erased_at,
    r.zone,
    r.country,
    f.stage,
    f.frequency,
    f.monetary,
    f.recency_days,
    f.last_order_at,
    (
        select coalesce(array_agg(i.source_id || ': ' || i.source_customer_id order by i.source_id, i.source_customer_id), '{}')
        from customer_identities as i where i.customer_id = c.customer_id
    ) as identities,
    (
        select coalesce(array_agg(m.segment_id order by m.segment_id), '{}')
        from segment_memberships as m
        inner join segment_definitions as d on m.segment_id = d.segment_id
        where m.customer_id = c.customer_id and m.left_at is null
    ) as segments
from people as p
inner join customers as c on p.customer_id = c.customer_id
cross join lateral (
    -- one by one: joined as a whole, the view would be worked out for every customer there is
    select q.zone, q.country from recipients as q
    where q.customer_id = c.customer_id
    limit 1
) as r
left join customer_features as f on c.customer_id = f.customer_id
order by c.customer_id
