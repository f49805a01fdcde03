-- suppress: unsubscribes and complaints stop marketing to the address, a hard bounce stops everything.
--
-- reads   events, messages, customers
-- writes  suppressions
-- params  event_ids uuid[]
-- re-run  safe: one suppression in force per address and reason
insert into suppressions (address, scope, reason, since, event_id)
select distinct on (a.address, s.scope, s.reason) a.address, s.scope, s.reason, e.at, e.event_id
from events as e
inner join customers as c on e.customer_id = c.customer_id
left join messages as m on e.message_id = m.message_id
cross join lateral address_on(coalesce(m.channel, e.detail ->> 'channel', 'email'), c.address, c.phone) as a (address)
inner join (
    values ('unsubscribed', 'marketing', 'unsubscribed'), ('complained', 'marketing', 'complained'), ('bounced', 'all', 'hard_bounce')
) as s (kind, scope, reason) on e.kind = s.kind
where
    e.event_id = any(cast(:event_ids as uuid []))
    and a.address is not null
    and (e.kind <> 'bounced' or coalesce(e.detail ->> 'hard', 'false') = 'true')
order by a.address, s.scope, s.reason, e.at
on conflict (address, scope, reason) where lifted_at is null do nothing
