-- count_tallies: messages, events, passages and refusals per campaign, step, state and UTC day, from the day of `since` on; what is
-- not over yet is counted whole. `since` is the beginning of a UTC day.
--
-- reads   messages, events, enrolments, refusals
-- writes  tallies
-- params  since timestamptz
-- re-run  safe: after forget_tallies with the same `since`
insert into tallies (what, campaign_id, step_id, state, reason, day, open, count)
select
    'message' as what,
    m.campaign_id,
    m.step_id,
    m.state,
    coalesce(m.reason, '') as reason,
    cast(m.finalized_at at time zone 'UTC' as date) as day,
    false as open,
    count(*) as count
from messages as m
where m.finalized_at >= cast(:since as timestamptz)
group by 2, 3, 4, 5, 6
union all
select 'message', m.campaign_id, m.step_id, m.state, coalesce(m.reason, ''), cast(m.send_at at time zone 'UTC' as date), true, count(*)
from messages as m
where m.state in ('scheduled', 'held', 'sending', 'unknown')
group by 2, 3, 4, 5, 6
union all
-- the first event of its kind about a message: a mail that was opened three times was opened
select 'event', m.campaign_id, m.step_id, e.kind, '', cast(e.known_at at time zone 'UTC' as date), false, count(*)
from events as e
inner join messages as m on e.message_id = m.message_id
where
    e.known_at >= cast(:since as timestamptz)
    and not exists (
        select from events as f
        where f.message_id = e.message_id and f.kind = e.kind and (f.known_at, f.event_id) < (e.known_at, e.event_id)
    )
group by 2, 3, 4, 6
union all
select 'passage', p.campaign_id, '', p.arm, p.exit_reason, cast(p.exited_at at time zone 'UTC' as date), false, count(*)
from enrolments as p
where p.exited_at >= cast(:since as timestamptz)
group by 2, 4, 5, 6
union all
select 'passage', p.campaign_id, '', p.arm, '', cast(p.enrolled_at at time zone 'UTC' as date), true, count(*)
from enrolments as p
where p.exited_at is null
group by 2, 4, 6
union all
select 'refusal', r.campaign_id, '', 'not_enrolled', r.reason, cast(r.first_seen at time zone 'UTC' as date), false, count(*)
from refusals as r
where r.first_seen >= cast(:since as timestamptz)
group by 2, 5, 6
