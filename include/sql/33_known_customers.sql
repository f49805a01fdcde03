-- known_customers: which of these ids are customers.
--
-- reads   customers
-- params  customers bigint[]
-- re-run  safe: only reads
select c.customer_id
from customers as c
where c.customer_id = any(cast(:customers as bigint []))
