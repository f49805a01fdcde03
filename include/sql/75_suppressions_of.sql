-- suppressions_of: suppressions of all addresses of a person, those in force first.
--
-- reads   suppressions, customers
-- params  customers bigint[]
-- re-run  safe: only reads
select distinct
    s.suppression_id,
    s.scope,
    s.reason,
    s.since,
    s.asked_by,
    s.why,
    s.lifted_at,
    s.lifted_by,
    s.lift_reason,
    s.lifted_at is null as in_force
from suppressions as s
inner join customers as c on s.address in (c.address, c.phone)
where c.customer_id = any(cast(:customers as bigint []))
order by in_force desc, s.since desc, s.suppression_id
