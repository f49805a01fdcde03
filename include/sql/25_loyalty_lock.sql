-- loyalty_lock: one run of the loyalty stage at a time; the ledger itself is kept by its own locks.
--
-- reads   none
-- params  none
-- re-run  safe
select pg_advisory_xact_lock(72060025)
