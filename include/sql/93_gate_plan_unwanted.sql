-- gate_plan_unwanted: planned messages to people who did not agree, or whose address was suppressed, when the plan was made.
-- What became known later is no fault of the plan: the hand-over refuses it. Written apart from the rules the planner
-- uses, so that a mistake there shows here.
--
-- reads   messages, enrolments, campaign_versions, customers, consents, suppressions, events
-- writes  none
-- params  campaign text
-- re-run  safe: reads only
select m.message_id
from messages as m
inner join customers as c on m.customer_id = c.customer_id
inner join enrolments as e on m.enrolment_id = e.enrolment_id
inner join campaign_versions as v on e.campaign_id = v.campaign_id and e.version = v.version
where
    m.campaign_id = :campaign and (m.state = 'scheduled' or (m.state = 'held' and m.reason = 'awaiting_check'))
    and (
        exists (
            select 1 from suppressions as s
            left join events as told on s.event_id = told.event_id
            where
                s.address = case m.channel when 'email' then c.address when 'sms' then c.phone end and (s.scope = 'all' or m.kind = 'marketing')
                and coalesce(told.known_at, s.since) <= m.planned_at
                and (s.lifted_at is null or s.lifted_at > m.planned_at)
        )
        or (
            m.kind = 'marketing'
            and not coalesce((
                select k.granted from consents as k
                where
                    k.customer_id = m.customer_id and k.channel = m.channel
                    and k.topic = coalesce(v.definition ->> 'topic', 'marketing')
                    and k.at <= m.planned_at and (k.granted or k.known_at <= m.planned_at)
                order by k.at desc, k.granted
                limit 1
            ), false)
        )
    )
