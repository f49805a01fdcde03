-- withdraw_unanswered: who did not answer the question whether to stay is written to no more.
-- A later sign of a human (a click, a reply, an order, a visit, a new consent) keeps the consent.
--
-- reads   messages, enrolments, events, orders, consents, external_events
-- writes  consents
-- params  campaign text, step text, topic text, after interval, now timestamptz
-- re-run  safe: who has no consent any more is not touched
insert into consents (customer_id, channel, topic, granted, at, basis, known_at)
select distinct m.customer_id, m.channel, cast(:topic as text), false, cast(:now as timestamptz), 'unanswered', cast(:now as timestamptz)
from messages as m
inner join enrolments as e on m.enrolment_id = e.enrolment_id
where
    m.campaign_id = :campaign
    and m.step_id = :step
    and m.state = 'sent'
    and m.handed_over_at <= cast(:now as timestamptz) - cast(:after as interval)
    and coalesce(last_sign_of(m.customer_id, :now), '-infinity') <= e.anchor_at
    and (
        select k.granted
        from consents as k
        where k.customer_id = m.customer_id and k.channel = m.channel and k.topic = :topic and k.at <= :now
        order by k.at desc, k.granted
        limit 1
    )
on conflict do nothing
