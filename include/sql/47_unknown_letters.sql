-- unknown_letters: messages handed over whose answer was lost, the oldest first, and what is known of them.
-- After 72 hours no report is expected any more: final.
--
-- reads   messages, attempts, event_inbox
-- params  message_id uuid, now timestamptz, most int
-- re-run  safe: only reads
select
    m.message_id,
    m.campaign_id as campaign,
    m.step_id as step,
    m.kind,
    m.handed_over_at,
    m.attempt as attempts,
    m.lost_answers,
    m.resend_at,
    m.content_hash,
    m.detail,
    a.reply,
    m.handed_over_at < cast(:now as timestamptz) - interval '72 hours' as final,
    (
        select count(*) from event_inbox as i where i.taken_at is null and i.payload ->> 'message_id' = m.message_id::text
    ) as reports_waiting
from messages as m
left join lateral (
    select t.reply from attempts as t
    where t.message_id = m.message_id and t.outcome = 'ambiguous' order by t.attempt desc limit 1
) as a on true
where m.state = 'unknown' and (cast(:message_id as uuid) is null or m.message_id = :message_id)
order by m.handed_over_at, m.message_id
limit :most
