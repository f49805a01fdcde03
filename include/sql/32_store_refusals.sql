-- store_refusals: every candidate not enrolled keeps the reason, so that each non-send can be explained.
--
-- reads   judged
-- writes  refusals
-- params  campaign text, now timestamptz, run_id text
-- re-run  safe: one row per candidate and reason
insert into refusals (campaign_id, customer_id, anchor_key, reason, first_seen, last_seen, run_id)
select distinct on (j.customer_id, j.anchor_key) :campaign, j.customer_id, j.anchor_key, j.reason, :now, :now, :run_id
from judged as j
where j.reason is not null
order by j.customer_id, j.anchor_key
on conflict (campaign_id, customer_id, anchor_key, reason) do update
    set last_seen = excluded.last_seen, run_id = excluded.run_id
    where refusals.last_seen < excluded.last_seen
