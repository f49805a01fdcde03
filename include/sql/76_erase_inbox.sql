-- erase_inbox: reports about an erased person's messages, as they landed.
--
-- reads   messages
-- writes  event_inbox
-- params  customers bigint[]
-- re-run  safe
with cleared as (
    update event_inbox as i
    set
        raw = null,
        payload = (
            select coalesce(jsonb_object_agg(d.key, d.value), '{}')
            from jsonb_each(i.payload) as d where d.key in ('kind', 'message_id', 'at')
        )
    where i.payload ->> 'message_id' in (
        select m.message_id::text from messages as m where m.customer_id = any(cast(:customers as bigint []))
    )
    returning i.inbox_id
)

select count(*) as event_inbox from cleared
