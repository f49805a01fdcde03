-- report_unknown: messages handed over whose answer was lost; listed until evidence settles them. After 72 hours none is expected.
--
-- reads   messages, attempts
-- params  now timestamptz
-- re-run  safe: only reads
select
    m.message_id,
    m.campaign_id as campaign,
    m.step_id as step,
    m.kind,
    m.handed_over_at,
    m.attempt,
    a.reply,
    m.handed_over_at < cast(:now as timestamptz) - interval '72 hours' as final
from messages as m
left join attempts as a on m.message_id = a.message_id and m.attempt = a.attempt
where m.state = 'unknown'
order by m.handed_over_at
limit 200
