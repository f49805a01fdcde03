-- feeds_are_fresh: on the copy of a simulation: every shop has told everything up to now.
--
-- writes  sources
-- params  now timestamptz
-- re-run  safe
update sources
set complete_until = greatest(complete_until, :now), loaded_at = :now
