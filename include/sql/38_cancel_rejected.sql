-- cancel_rejected: nobody gets the messages of a rejected request.
--
-- reads, writes  messages: held (awaiting_approval) -> cancelled
-- params         approval_id bigint, now timestamptz
-- re-run         safe: a cancelled message is no longer held
update messages
set state = 'cancelled', reason = 'not_approved', finalized_at = :now
where approval_id = :approval_id and state = 'held' and reason = 'awaiting_approval'
