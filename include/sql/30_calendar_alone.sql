-- calendar_alone: one at a time: two planners or two editors must not write the same revision twice.
--
-- reads   nothing: a lock of the transaction
-- params  none
-- re-run  safe
select pg_advisory_xact_lock(72060002)
