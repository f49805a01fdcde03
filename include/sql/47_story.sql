-- story: every hand-over, report and decision of one message, in order.
--
-- reads   attempts, events, interventions
-- params  message_id uuid
-- re-run  safe: only reads
select a.claimed_at as at, 'attempt ' || a.attempt as what, concat_ws(', ', coalesce(a.outcome, 'open'), a.scope, a.reply) as told
from attempts as a
where a.message_id = :message_id
union all
select e.at, e.kind, 'reported by ' || e.source
from events as e
where e.message_id = :message_id
union all
select
    i.at, i.action || ' by ' || i.decided_by,
    concat_ws('; ', i.from_state || ' -> ' || i.to_state, i.why, nullif(i.evidence, ''))
from interventions as i
where i.message_id = :message_id
order by 1, 2
