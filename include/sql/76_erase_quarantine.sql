-- erase_quarantine: rows refused at the door that a shop delivered about an erased person; the reasons stay.
--
-- reads   customer_identities, customers
-- writes  quarantine
-- params  customers bigint[]
-- re-run  safe
update quarantine as q
set raw = '{"erased": true}', released_at = coalesce(q.released_at, q.last_seen)
from (
    select i.source_id, i.source_customer_id as key
    from customer_identities as i
    where i.customer_id = any(cast(:customers as bigint []))
    union
    select c.source_id, c.source_customer_id
    from customers as c
    where c.customer_id = any(cast(:customers as bigint []))
    union
    select c.source_id, c.email
    from customers as c
    where c.customer_id = any(cast(:customers as bigint [])) and c.email is not null
) as t
where
    q.source_id = t.source_id
    and exists (
        select from jsonb_each_text(q.raw) as d
        where (d.key ~* 'customer|client|person|mail' and btrim(d.value) = t.key)
    )
