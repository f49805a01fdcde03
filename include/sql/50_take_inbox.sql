-- take_inbox: what was reported becomes events, each once; a row that cannot be understood keeps its problem.
--
-- reads   messages
-- writes  event_inbox: taken; events
-- params  now timestamptz, batch int
-- re-run  safe: the event's id is made from the report's key
with taken as (
    select i.inbox_id, i.source, i.dedupe_key, i.payload, i.received_at
    from event_inbox as i
    where i.taken_at is null and i.received_at <= :now
    order by i.inbox_id
    limit :batch
    for update skip locked
),

understood as (
    select
        t.inbox_id,
        t.source,
        t.dedupe_key,
        t.payload,
        m.message_id,
        m.customer_id,
        t.payload ->> 'kind' as kind,
        -- nobody reports the future: a wrong clock elsewhere must not move a fact behind "now"
        least(coalesce(at.value, t.received_at), t.received_at) as at,
        case
            when coalesce(t.payload ->> 'kind', '') not in (
                'delivered', 'deferred', 'bounced', 'complained', 'opened', 'clicked', 'scanned', 'replied', 'rated', 'unsubscribed'
            ) then 'unknown kind'
            when m.message_id is null then 'unknown message'
        end as problem
    from taken as t
    -- by the key of messages: as text it would be compared with every message there is
    left join messages as m
        on m.message_id = case when pg_input_is_valid(t.payload ->> 'message_id', 'uuid') then cast(t.payload ->> 'message_id' as uuid) end
    left join lateral (
        select case when pg_input_is_valid(t.payload ->> 'at', 'timestamptz') then cast(t.payload ->> 'at' as timestamptz) end as value
    ) as at on true
),

stored as (
    insert into events (event_id, message_id, customer_id, kind, at, known_at, source, detail)
    select
        uuid_of('event', u.source, u.dedupe_key), u.message_id, u.customer_id, u.kind, u.at, :now, u.source,
        coalesce(u.payload -> 'detail', u.payload - '{kind,message_id,at}'::text [])
    from understood as u
    where u.problem is null
    on conflict do nothing
    returning event_id
),

noted as (
    update event_inbox as i
    set taken_at = :now, problem = u.problem
    from understood as u
    where i.inbox_id = u.inbox_id
    returning i.problem
)

select
    (select coalesce(array_agg(s.event_id), '{}') from stored as s) as event_ids,
    (select count(*) from noted) as taken,
    (select count(*) from noted as n where n.problem is not null) as not_understood
