-- why_person: customers answering to an id, a source's customer id, or an e-mail address.
--
-- reads   customers, recipients, customer_features, suppressions, consents
-- params  wanted text
-- re-run  safe: only reads
select
    c.customer_id,
    c.source_id,
    c.source_customer_id,
    r.zone,
    r.zone_from,
    r.country,
    f.stage,
    f.frequency,
    f.recency_days,
    f.last_order_at
from customers as c
cross join lateral (
    -- one by one: joined as a whole, the view would be worked out for every customer there is
    select
        q.zone,
        q.zone_from,
        q.country
    from recipients as q
    where q.customer_id = c.customer_id
    limit 1
) as r
left join customer_features as f on c.customer_id = f.customer_id
where c.customer_id in (
    -- each by its index: one condition with "or" would read everybody
    select k.customer_id from customers as k
    where k.customer_id = case when :wanted ~ '^[0-9]{1,18}$' then cast(:wanted as bigint) end
    union
    select k.customer_id from customers as k where k.source_customer_id = :wanted
    union
    select k.customer_id from customers as k where k.address = lower(normalize(btrim(:wanted), nfkc))
)
order by c.customer_id
limit 20
