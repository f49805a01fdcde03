-- report_reasons: why something was not sent: candidates refused, messages stopped or put off.
--
-- reads   refusals, messages
-- re-run  safe: only reads
select r.campaign_id as campaign, 'not enrolled' as what, r.reason, count(*) as people
from refusals as r
group by r.campaign_id, r.reason
union all
select m.campaign_id, case m.state when 'scheduled' then 'put off' else m.state end, m.reason, count(distinct m.customer_id)
from messages as m
where m.reason is not null and m.state <> 'sent'
group by m.campaign_id, case m.state when 'scheduled' then 'put off' else m.state end, m.reason
order by 1, 4 desc, 2, 3
