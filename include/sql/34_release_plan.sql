-- release_plan: the plan has passed its gate; what was held for it may go.
--
-- reads, writes  messages: held (awaiting_check) -> scheduled
-- params         campaign text
-- re-run         safe: a released message is no longer held
update messages
set state = 'scheduled', reason = null
where campaign_id = :campaign and state = 'held' and reason = 'awaiting_check'
