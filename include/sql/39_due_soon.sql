-- due_soon: how much of a plan that passed its gates would go out within the canary's watch, counted from the first of it.
--
-- reads   messages
-- params  campaign text, now timestamptz, hold interval
-- re-run  safe: only reads
with plan as (
    select greatest(m.send_at, cast(:now as timestamptz)) as send_at
    from messages as m
    where m.campaign_id = :campaign and m.state = 'held' and m.reason = 'awaiting_check'
)

select
    count(*) as messages,
    count(*) filter (where p.send_at < f.first + cast(:hold as interval)) as soon
from plan as p
cross join (select min(x.send_at) as first from plan as x) as f
