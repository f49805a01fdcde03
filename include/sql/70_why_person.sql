-- why_person: customers answering to an id, a source's customer id, or an e-mail address.
--
-- reads   customers, customer_features, suppressions, consents
-- params  wanted text
-- re-run  safe: only reads
select
    c.customer_id,
    c.source_id,
    c.source_customer_id,
    coalesce(z.zone, s.time_zone) as zone,
    z.zone is null as zone_of_shop,
    f.stage,
    f.frequency,
    f.recency_days,
    f.last_order_at
from customers as c
inner join sources as s on c.source_id = s.source_id
left join time_zones as z on c.time_zone = z.zone
left join customer_features as f on c.customer_id = f.customer_id
where
    c.customer_id::text = :wanted
    or c.source_customer_id = :wanted
    or c.address = lower(normalize(btrim(:wanted), nfkc))
order by c.customer_id
limit 20
