-- forget_tallies: what is counted anew: everything that may still change, and all days from `since` on.
--
-- reads   nothing
-- writes  tallies
-- params  since timestamptz
-- re-run  safe
delete from tallies
where open or day >= cast(cast(:since as timestamptz) at time zone 'UTC' as date)
