-- orphans_at_home: refused rows whose only fault was that their order or customer was not there, and now it is.
--
-- reads   quarantine, orders, customer_identities
-- writes  none
-- params  source text
-- re-run  safe: reads only
select q.quarantine_id
from quarantine as q
where
    q.source_id = :source
    and q.released_at is null
    and (
        (
            q.reasons = array['source_order_id: no such order']
            and exists (
                select 1 from orders as o
                where o.source_id = q.source_id and o.source_order_id = btrim(q.raw ->> 'source_order_id')
            )
        )
        or (
            q.reasons = array['source_customer_id: no such customer']
            and exists (
                select 1 from customer_identities as i
                where i.source_id = q.source_id and i.source_customer_id = btrim(q.raw ->> 'source_customer_id')
            )
        )
    )
order by q.quarantine_id
