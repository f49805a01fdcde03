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
inner join recipients as r on c.customer_id = r.customer_id
left join customer_features as f on c.customer_id = f.customer_id
where
    c.customer_id::text = :wanted
    or c.source_customer_id = :wanted
    or c.address = lower(normalize(btrim(:wanted), nfkc))
order by c.customer_id
limit 20
