-- open_approval: the campaign's request that nobody has decided yet, if there is one.
--
-- reads   approvals, approval_decisions
-- params  campaign text
-- re-run  safe: only reads
select a.approval_id, a.audience_hash, a.messages, a.people
from approvals as a
where a.campaign_id = :campaign and not exists (select 1 from approval_decisions as d where d.approval_id = a.approval_id)
order by a.approval_id desc
limit 1
