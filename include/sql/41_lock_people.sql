-- lock_people: one hand-over at a time per customer, or two workers would both see the cap not yet reached.
--
-- reads   customers (row locks, in one order so that nobody waits in a circle)
-- params  people bigint[]
-- re-run  safe: changes nothing
select c.customer_id
from customers as c
where c.customer_id = any(cast(:people as bigint []))
order by c.customer_id
for no key update
