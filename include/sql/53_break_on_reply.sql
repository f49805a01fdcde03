-- break_on_reply: who answers a mail waits for a person, not for the next offer; and a ticket event is raised.
--
-- reads   events, customers
-- writes  breaks, external_events (kind ticket_opened)
-- params  event_ids uuid[], wait interval, now timestamptz
-- re-run  safe: one break and one ticket event for each answered message
with replies as (
    select e.event_id, e.message_id, e.customer_id, e.at, c.source_id
    from events as e
    inner join customers as c on e.customer_id = c.customer_id
    where e.event_id = any(cast(:event_ids as uuid [])) and e.kind = 'replied'
),

told as (
    insert into external_events (source_id, event_key, customer_id, kind, at, known_at, detail)
    select distinct on (r.source_id, r.message_id)
        r.source_id, 'reply:' || r.message_id, r.customer_id, 'ticket_opened', r.at, cast(:now as timestamptz),
        jsonb_build_object('message_id', r.message_id)
    from replies as r
    order by r.source_id, r.message_id, r.at
    on conflict do nothing
)

insert into breaks (customer_id, since, until, asked_by, message_id)
select distinct on (r.message_id) r.customer_id, r.at, r.at + cast(:wait as interval), 'reply', r.message_id
from replies as r
where cast(:wait as interval) > interval '0' and r.message_id is not null
order by r.message_id, r.at
on conflict do nothing
