-- put_off_plan: a large plan that passed its gates waits for its canary.
--
-- reads, writes  messages: held (awaiting_check) -> held (awaiting_canary)
-- params         campaign text, canary_id bigint
-- re-run         safe: what waits for a canary no longer waits for its check
update messages
set reason = 'awaiting_canary', canary_id = :canary_id
where campaign_id = :campaign and state = 'held' and reason = 'awaiting_check'
