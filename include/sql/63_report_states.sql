-- report_states: messages per campaign, step and state.
--
-- reads   messages
-- re-run  safe: only reads
select m.campaign_id as campaign, m.step_id as step, m.state, count(*) as messages, min(m.due_at) as first_due
from messages as m
group by m.campaign_id, m.step_id, m.state
order by m.campaign_id, first_due, m.state
