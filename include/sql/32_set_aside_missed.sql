-- set_aside_missed: what happened while the campaign did not run and is older than its reach now starts nothing, and keeps the reason.
--
-- reads   enrolments
-- writes  candidates (temporary): without them; refusals
-- params  campaign text, now timestamptz, max_age interval, run_id text
-- re-run  safe: one row for each candidate; whoever has been enrolled or refused before keeps that answer
with missed as (
    delete from candidates as c
    where c.anchor_at <= cast(:now as timestamptz) - cast(:max_age as interval)
    returning c.customer_id, c.anchor_key
)

insert into refusals (campaign_id, customer_id, anchor_key, reason, first_seen, last_seen, run_id)
select distinct :campaign, m.customer_id, m.anchor_key, 'missed', cast(:now as timestamptz), cast(:now as timestamptz), :run_id
from missed as m
where
    not exists (
        select 1 from enrolments as e
        where e.campaign_id = :campaign and e.customer_id = m.customer_id and e.anchor_key = m.anchor_key
        offset 0 -- for each by its key, as in judge_candidates
    )
    and not exists (
        select 1 from refusals as r
        where r.campaign_id = :campaign and r.customer_id = m.customer_id and r.anchor_key = m.anchor_key
        offset 0
    )
on conflict do nothing
