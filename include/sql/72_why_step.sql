-- why_step: what the conditions of one step say about the customer's newest passage that is under way.
--
-- reads   enrolments, campaign_versions, customer_features, segment_memberships, messages, events, orders, returns, reviews
-- params  customer bigint, campaign text, step text, now timestamptz
-- re-run  safe: only reads
select step_refused(v.definition, :step, e.enrolment_id, :now) as refused
from enrolments as e
inner join campaign_versions as v on e.campaign_id = v.campaign_id and e.version = v.version
where
    e.customer_id = :customer
    and e.campaign_id = :campaign
    and e.enrolled_at <= :now
    and (e.exited_at is null or e.exited_at > :now)
order by e.anchor_at desc
limit 1
