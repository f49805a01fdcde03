-- day_tallies: messages per day, campaign, step and state between two days, both included; of one campaign, or of all.
--
-- reads   tallies
-- params  campaign text, first date, last date
-- re-run  safe: only reads
select
    t.day,
    t.campaign_id as campaign,
    t.step_id as step,
    t.state,
    t.open,
    cast(sum(t.count) as bigint) as count
from tallies as t
where
    t.what = 'message'
    and t.day between cast(:first as date) and cast(:last as date)
    and (cast(:campaign as text) is null or t.campaign_id = :campaign)
group by t.day, t.campaign_id, t.step_id, t.state, t.open
order by t.day, t.campaign_id, t.step_id, t.state
