-- tell_reports: what the reports mean; one that is no news, or cannot be understood, is done with.
--
-- reads   messages, customers
-- writes  event_inbox: payload, or taken with a problem
-- params  rows jsonb, now timestamptz
-- re-run  safe: a row that was told has a payload
with told as (
    select r.inbox_id, r.payload, r.problem, r.nothing, r.phone, r.address
    from jsonb_to_recordset(:rows) as r (inbox_id bigint, payload jsonb, problem text, nothing boolean, phone text, address text)
),

found as (
    select
        t.*,
        coalesce(
            -- our own id, where the provider gives it back; else the provider's, which we kept
            (
                select m.message_id
                from messages as m
                where
                    m.message_id
                    = case when pg_input_is_valid(t.payload ->> 'message_id', 'uuid') then cast(t.payload ->> 'message_id' as uuid) end
            ),
            (select m.message_id from messages as m where m.provider_id = t.payload ->> 'provider_id' order by m.message_id limit 1),
            -- a reply names a number only: it answers the newest text to it
            (
                select m.message_id
                from customers as c
                inner join messages as m on c.customer_id = m.customer_id
                where c.phone = t.phone and m.channel = 'sms' and m.handed_over_at is not null
                order by m.handed_over_at desc
                limit 1
            ),
            -- a suppression list names an address only: it is about the newest mail to it that had gone by then
            (
                select m.message_id
                from customers as c
                inner join messages as m on c.customer_id = m.customer_id
                where
                    c.address = lower(normalize(btrim(t.address), nfkc))
                    and m.channel = 'email'
                    and m.handed_over_at <= coalesce(cast(t.payload ->> 'at' as timestamptz), :now)
                order by m.handed_over_at desc
                limit 1
            )
        ) as message_id
    from told as t
)

update event_inbox as i
set
    payload = case when f.payload is null then i.payload else (f.payload - 'provider_id') || jsonb_build_object('message_id', f.message_id) end,
    taken_at = case when f.nothing or f.problem is not null then cast(:now as timestamptz) end,
    problem = f.problem
from found as f
where i.inbox_id = f.inbox_id and i.taken_at is null
