-- record_notices: these people were told on which consent they get mail, and how to withdraw it.
--
-- reads   customers
-- writes  consent_notices
-- params  channel text, customers bigint[], told_at timestamptz, by_whom text, now timestamptz
-- re-run  safe: the same notice is there once
insert into consent_notices (customer_id, channel, told_at, by_whom, known_at)
select
    c.customer_id,
    :channel,
    :told_at,
    :by_whom,
    :now
from customers as c
where c.customer_id = any(cast(:customers as bigint []))
on conflict do nothing
returning customer_id
