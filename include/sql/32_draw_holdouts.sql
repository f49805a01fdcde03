-- draw_holdouts: who is left alone is decided once per person, for this campaign and for all of them, and archived.
-- A later change of share or salt moves nobody from one side to the other; it holds for people drawn from then on.
--
-- reads   judged
-- writes  holdouts
-- params  draws jsonb, now timestamptz, run_id text
-- re-run  safe: one draw per person and campaign
insert into holdouts (customer_id, campaign_id, held, share, salt, since, run_id)
select distinct
    j.customer_id,
    d.campaign_id,
    in_holdout(d.campaign_id, j.customer_id, d.share, d.salt),
    d.share,
    d.salt,
    cast(:now as timestamptz),
    :run_id
from judged as j
cross join jsonb_to_recordset(:draws) as d (campaign_id text, share numeric, salt text)
where j.reason is null
on conflict (customer_id, campaign_id) do nothing
