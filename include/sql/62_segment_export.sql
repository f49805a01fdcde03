-- segment_export: every present member with its figures, by id; no name, no address.
--
-- reads   segment_memberships, customers, customer_facts
-- params  segment text
-- re-run  safe: only reads
select
    m.customer_id,
    c.source_id,
    c.source_customer_id,
    m.entered_at,
    f.stage,
    f.frequency,
    f.monetary,
    f.last_order_at
from segment_memberships as m
inner join customers as c on m.customer_id = c.customer_id
left join customer_facts as f on m.customer_id = f.customer_id
where m.segment_id = :segment and m.left_at is null
order by m.customer_id
