-- why_history: passages, messages and refusals of one customer in one campaign, oldest first.
--
-- reads   enrolments, messages, refusals
-- params  customer bigint, campaign text, now timestamptz
-- re-run  safe: only reads
select
    e.enrolled_at as at,
    'enrolment' as what,
    e.anchor_key as name,
    case when e.exited_at <= :now then 'ended' else e.arm end as state,
    case when e.exited_at <= :now then e.exit_reason end as reason,
    e.exited_at as until
from enrolments as e
where e.customer_id = :customer and e.campaign_id = :campaign and e.enrolled_at <= :now
union all
select m.due_at, 'message', m.step_id, m.state, m.reason, coalesce(m.handed_over_at, m.finalized_at, m.send_at)
from messages as m
where m.customer_id = :customer and m.campaign_id = :campaign and m.planned_at <= :now
union all
select r.first_seen, 'refusal', r.anchor_key, 'not enrolled', r.reason, r.last_seen
from refusals as r
where r.customer_id = :customer and r.campaign_id = :campaign and r.first_seen <= :now
order by 1, 2
