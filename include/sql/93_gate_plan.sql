-- gate_plan: what a campaign has planned and not sent yet.
--
-- reads   messages
-- writes  none
-- params  campaign text, now timestamptz
-- re-run  safe: reads only
select
    message_id,
    enrolment_id,
    step_id,
    customer_id,
    channel,
    kind,
    template,
    due_at,
    send_at,
    expires_at,
    planned_at,
    extract(epoch from due_at - cast(:now as timestamptz)) / 86400 as days_ahead
from messages
where campaign_id = :campaign and (state = 'scheduled' or (state = 'held' and reason = 'awaiting_check'))
