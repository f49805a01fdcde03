-- dead_letters: messages that failed for good and that nobody has looked at yet, the newest first.
--
-- reads   messages, attempts, interventions
-- params  message_id uuid, most int
-- re-run  safe: only reads
select
    m.message_id,
    m.campaign_id as campaign,
    m.step_id as step,
    m.kind,
    m.reason,
    m.attempt as attempts,
    m.finalized_at,
    m.expires_at,
    m.content_hash,
    a.scope,
    coalesce(a.reply, m.detail) as reply
from messages as m
left join attempts as a on m.message_id = a.message_id and m.attempt = a.attempt
where
    m.state = 'failed'
    and (cast(:message_id as uuid) is null or m.message_id = :message_id)
    and (
        cast(:message_id as uuid) is not null
        or not exists (
            select 1 from interventions as i
            where i.message_id = m.message_id and i.action = 'dropped' and i.at >= m.finalized_at
        )
    )
order by m.finalized_at desc, m.message_id
limit :most
