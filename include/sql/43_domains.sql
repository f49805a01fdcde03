-- domains: of the addresses behind these messages.
--
-- reads   messages, customers
-- params  ids uuid[]
-- re-run  safe: only reads
select distinct split_part(c.address, '@', 2) as domain
from messages as m
inner join customers as c on m.customer_id = c.customer_id
where m.message_id = any(cast(:ids as uuid [])) and c.address is not null
