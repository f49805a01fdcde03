-- withdraw_consent: who unsubscribed or complained has said no, from the moment of the event.
--
-- reads   events
-- writes  consents
-- params  event_ids uuid[], now timestamptz
-- re-run  safe: one row per person, topic and instant
insert into consents (customer_id, channel, topic, granted, at, basis, known_at)
select distinct e.customer_id, coalesce(m.channel, e.detail ->> 'channel', 'email'), coalesce(v.definition ->> 'topic', 'marketing'), false, e.at, 'unsubscribe', cast(:now as timestamptz)
from events as e
left join messages as m on e.message_id = m.message_id
left join enrolments as n on m.enrolment_id = n.enrolment_id
left join campaign_versions as v on n.campaign_id = v.campaign_id and n.version = v.version
where e.event_id = any(cast(:event_ids as uuid [])) and e.kind in ('unsubscribed', 'complained') and e.customer_id is not null
on conflict do nothing
