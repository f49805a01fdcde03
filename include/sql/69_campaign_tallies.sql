-- campaign_tallies: all counts of one campaign, over all days.
--
-- reads   tallies
-- params  campaign text
-- re-run  safe: only reads
select
    t.what,
    t.step_id as step,
    t.state,
    t.reason,
    t.open,
    cast(sum(t.count) as bigint) as count,
    min(t.day) as first_day
from tallies as t
where t.campaign_id = :campaign
group by t.what, t.step_id, t.state, t.reason, t.open
