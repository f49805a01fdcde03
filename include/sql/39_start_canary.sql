-- start_canary: note a release of which a share goes first.
--
-- writes  canaries
-- params  campaign text, approval_id bigint, run_id text, now timestamptz, messages bigint
-- re-run  the caller starts one per release
insert into canaries (campaign_id, approval_id, run_id, started_at, messages)
values (:campaign, :approval_id, :run_id, :now, :messages)
returning canary_id
