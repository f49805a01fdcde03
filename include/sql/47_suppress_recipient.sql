-- suppress_recipient: the relay says this mailbox does not exist; nobody writes to it again.
--
-- reads   messages, customers
-- writes  suppressions
-- params  message_id uuid, now timestamptz
-- re-run  safe: one suppression in force per address and reason
insert into suppressions (address, scope, reason, since)
select address_on(m.channel, c.address, c.phone), 'all', 'hard_bounce', :now
from messages as m
inner join customers as c on m.customer_id = c.customer_id
where m.message_id = :message_id and address_on(m.channel, c.address, c.phone) is not null
on conflict (address, scope, reason) where lifted_at is null do nothing
