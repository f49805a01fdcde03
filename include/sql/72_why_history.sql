-- why_history: passages, messages and refusals of one customer in every campaign, oldest first, as they stood at an instant.
-- A ghost is what somebody in a control group would have been sent.
--
-- reads   enrolments, messages, ghost_messages, refusals
-- params  customer bigint, now timestamptz
-- re-run  safe: only reads
select
    e.campaign_id as campaign,
    e.enrolled_at as at,
    'enrolment' as what,
    e.anchor_key as name,
    case when e.exited_at <= :now then 'ended' else e.arm end as state,
    case when e.exited_at <= :now then e.exit_reason end as reason,
    cast(null as text) as detail,
    e.exited_at as until
from enrolments as e
where e.customer_id = :customer and e.enrolled_at <= :now
union all
select
    m.campaign_id,
    m.due_at,
    'message',
    m.step_id,
    case
        when coalesce(m.handed_over_at, m.finalized_at, m.claimed_at) > :now then 'scheduled'
        else m.state
    end,
    case when coalesce(m.handed_over_at, m.finalized_at, m.claimed_at, :now) <= :now then m.reason end,
    case when coalesce(m.handed_over_at, m.finalized_at, m.claimed_at, :now) <= :now and m.state <> 'sent' then m.detail end,
    case
        when coalesce(m.handed_over_at, m.finalized_at) <= :now then coalesce(m.handed_over_at, m.finalized_at)
        when m.handed_over_at is null and m.finalized_at is null then m.send_at
    end
from messages as m
where m.customer_id = :customer and m.planned_at <= :now
union all
select
    g.campaign_id,
    g.due_at,
    'ghost',
    g.step_id,
    case when g.finalized_at > :now then 'scheduled' else g.state end,
    case when coalesce(g.finalized_at, :now) <= :now then g.reason end,
    case when coalesce(g.finalized_at, :now) <= :now then g.detail end,
    case when g.finalized_at <= :now then coalesce(g.went_at, g.finalized_at) when g.finalized_at is null then g.send_at end
from ghost_messages as g
where g.customer_id = :customer and g.planned_at <= :now
union all
select r.campaign_id, r.first_seen, 'refusal', r.anchor_key, 'not enrolled', r.reason, null, case when r.last_seen <= :now then r.last_seen end
from refusals as r
where r.customer_id = :customer and r.first_seen <= :now
order by 2, 3
