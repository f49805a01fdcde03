-- suppress_for_message: no marketing any more to the address of the customer who got this message, from this commit on
--
-- reads   messages, customers
-- writes  suppressions: one row per address in force
-- params  message uuid, now timestamptz
-- re-run  safe: a suppression in force stays as it is; one that was lifted is set again, for the person asked again
insert into suppressions (address, scope, reason, since)
select distinct address_on(m.channel, c.address, c.phone), 'marketing', 'unsubscribed', cast(:now as timestamptz)
from messages as m
join customers as c using (customer_id)
where m.message_id = cast(:message as uuid) and address_on(m.channel, c.address, c.phone) is not null
on conflict (address, scope, reason) where lifted_at is null do nothing
