-- send_again: transactional messages whose answer was lost, and of which nothing was heard since, are due once more; the claim
-- reads every rule again and the kept bytes are handed over. What a report has proven meanwhile is sent.
--
-- reads   kept_letters, events, event_inbox
-- writes  messages: unknown -> scheduled, sent; those that expired stay unknown for good
-- params  now timestamptz
-- re-run  safe: only what is unknown and due again
with proven as (
    update messages as m
    set state = 'sent', reason = null, detail = 'evidence: ' || evidence_of(m.message_id), finalized_at = :now
    where m.state = 'unknown' and evidence_of(m.message_id) is not null
    returning m.message_id
),

again as (
    update messages as m
    set state = 'scheduled', reason = 'sent_again', detail = null, send_at = :now
    where
        m.state = 'unknown'
        and m.resend_at <= :now
        and m.expires_at > :now
        and m.kind = 'transactional'
        and evidence_of(m.message_id) is null
        and exists (select 1 from kept_letters as k where k.message_id = m.message_id)
        -- a report that has landed and was not read yet is read first
        and not exists (select 1 from event_inbox as i where i.taken_at is null and i.payload ->> 'message_id' = m.message_id::text)
        -- and so is a provider's, of which nobody knows yet whom it is about
        and not exists (select 1 from event_inbox as i where i.taken_at is null and i.raw is not null and i.payload = '{}')
    returning m.message_id
),

late as (
    update messages as m
    set resend_at = null
    where m.state = 'unknown' and m.resend_at is not null and m.expires_at <= :now and evidence_of(m.message_id) is null
)

select
    (select count(*) from again) as sent_again,
    (select count(*) from proven) as proven
