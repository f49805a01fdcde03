-- report_enrolments: passages per campaign, arm and how they ended.
--
-- reads   enrolments
-- re-run  safe: only reads
select e.campaign_id as campaign, e.arm, coalesce(e.exit_reason, 'under way') as ended, count(*) as enrolments
from enrolments as e
group by e.campaign_id, e.arm, coalesce(e.exit_reason, 'under way')
order by e.campaign_id, e.arm, 4 desc
