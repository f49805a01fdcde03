-- lock_audience: one run at a time changes features and memberships; the other waits, readers never do.
--
-- reads   nothing
-- writes  nothing; the lock ends with the transaction
-- params  none
-- re-run  safe
select pg_advisory_xact_lock(hashtextextended('postlude.audience', 0))
