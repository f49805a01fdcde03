-- erase_events: of what was reported only the kind, the time and the keys that name nobody stay.
--
-- reads   messages
-- writes  events
-- params  customers bigint[], kept text[]
-- re-run  safe
with cleared as (
    update events as e
    set detail = (
        select coalesce(jsonb_object_agg(d.key, d.value), '{}')
        from jsonb_each(e.detail) as d where d.key = any(cast(:kept as text []))
    )
    where
        (
            e.customer_id = any(cast(:customers as bigint []))
            or e.message_id in (select m.message_id from messages as m where m.customer_id = any(cast(:customers as bigint [])))
        )
        and e.detail <> '{}'
    returning e.event_id
)

select count(*) as events from cleared
