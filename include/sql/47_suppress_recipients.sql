-- suppress_recipients: the relay says these mailboxes do not exist; nobody writes to them again.
--
-- reads   messages, customers
-- writes  suppressions
-- params  ids uuid[], now timestamptz
-- re-run  safe: one suppression in force per address and reason
insert into suppressions (address, scope, reason, since)
select distinct address_on(m.channel, c.address, c.phone), 'all', 'hard_bounce', cast(:now as timestamptz)
from messages as m
inner join customers as c on m.customer_id = c.customer_id
where m.message_id = any(cast(:ids as uuid [])) and address_on(m.channel, c.address, c.phone) is not null
on conflict (address, scope, reason) where lifted_at is null do nothing
