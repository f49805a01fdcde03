-- report_effect: who ordered after being enrolled, treated against left alone (intention to treat).
-- Both arms are watched for the same time from enrolment; only passages watched that long count.
--
-- reads   enrolments, orders
-- params  now timestamptz, watch interval
-- re-run  safe: only reads
select
    e.campaign_id as campaign,
    e.arm,
    count(*) as people,
    count(*) filter (where ordered_since(e.customer_id, e.enrolled_at, e.enrolled_at + cast(:watch as interval))) as ordered
from enrolments as e
where e.enrolled_at <= cast(:now as timestamptz) - cast(:watch as interval)
group by e.campaign_id, e.arm
order by e.campaign_id, e.arm
