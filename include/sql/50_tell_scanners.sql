-- tell_scanners: clicks no person made. A scanner follows links within seconds of the delivery, and several of them at once.
--
-- reads   event_inbox, messages
-- writes  event_inbox: payload, clicked -> scanned
-- params  now timestamptz
-- re-run  safe: what is scanned stays scanned
with clicks as (
    select
        i.inbox_id,
        i.payload ->> 'message_id' as message_id,
        coalesce(cast(i.payload ->> 'at' as timestamptz), i.received_at) as at
    from event_inbox as i
    where i.taken_at is null and i.raw is not null and i.received_at <= :now and i.payload ->> 'kind' = 'clicked'
)

update event_inbox as i
set payload = i.payload || '{"kind": "scanned"}'
from clicks as k
where
    i.inbox_id = k.inbox_id
    and (
        exists (
            select 1 from messages as m
            where
                m.message_id = case when pg_input_is_valid(k.message_id, 'uuid') then cast(k.message_id as uuid) end
                and k.at < m.handed_over_at + interval '10 seconds'
        )
        or (
            select count(*) from clicks as o
            where o.message_id = k.message_id and o.at between k.at - interval '2 seconds' and k.at + interval '2 seconds'
        ) > 2
    )
