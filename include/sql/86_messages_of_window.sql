-- messages_of_window: every message that was planned, sent or ended in a window, or still waits at its end.
--
-- reads   messages, enrolments, campaign_versions, customers
-- params  first timestamptz, until timestamptz
-- re-run  safe: only reads
select
    m.message_id,
    m.enrolment_id,
    m.campaign_id as campaign,
    m.step_id as step,
    m.customer_id,
    m.channel,
    m.state,
    m.reason,
    e.anchor_at,
    m.due_at,
    m.send_at,
    m.handed_over_at,
    m.finalized_at,
    m.planned_at,
    case m.channel when 'email' then split_part(c.address, '@', 2) else m.channel end as domain,
    p.pool
from messages as m
inner join enrolments as e on m.enrolment_id = e.enrolment_id
inner join customers as c on m.customer_id = c.customer_id
left join (
    select v.campaign_id, v.version, s.value ->> 'id' as step_id, s.value -> 'coupon' ->> 'pool' as pool
    from campaign_versions as v
    cross join jsonb_array_elements(v.definition -> 'steps') as s (value)
    where s.value -> 'coupon' ->> 'pool' is not null
) as p on e.campaign_id = p.campaign_id and e.version = p.version and m.step_id = p.step_id
where
    m.planned_at < :until
    and (
        m.planned_at >= :first
        or m.handed_over_at >= :first
        or m.finalized_at >= :first
        or m.state in ('scheduled', 'held', 'sending')
    )
