-- report_effect: who ordered after their turn, treated against left alone (intention to treat).
-- The turn is the first hand-over of a passage, whatever became of it, or its ghost send time: both after the same caps, windows and
-- exits, so neither arm has a head start. Both are watched for the same time; only passages watched that long count.
--
-- reads   enrolments, messages, ghost_messages, orders
-- params  now timestamptz, watch interval
-- re-run  safe: only reads
with told as (
    -- a claim that was given back before anything was handed over is no turn
    select m.enrolment_id, min(coalesce(m.handed_over_at, m.claimed_at)) as turn_at
    from messages as m
    where
        m.state in ('sent', 'unknown', 'failed')
        or (m.state = 'skipped' and m.reason in ('cannot_render', 'claim_outdated'))
    group by m.enrolment_id
    union all
    select g.enrolment_id, min(g.went_at)
    from ghost_messages as g
    where g.state = 'went'
    group by g.enrolment_id
)

select
    e.campaign_id as campaign,
    e.arm,
    count(*) as people,
    count(*) filter (where ordered_since(e.customer_id, t.turn_at, t.turn_at + cast(:watch as interval))) as ordered
from enrolments as e
inner join told as t on e.enrolment_id = t.enrolment_id
where t.turn_at <= cast(:now as timestamptz) - cast(:watch as interval)
group by e.campaign_id, e.arm
order by e.campaign_id, e.arm
