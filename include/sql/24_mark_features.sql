-- mark_features: note the instant customer_features speaks of, and which run wrote it.
--
-- reads   nothing
-- writes  feature_state; computed_at is the wall clock, for people: nothing is decided by it
-- params  now timestamptz, run_id text
-- re-run  safe: the same run at the same instant changes nothing
insert into feature_state as old (as_of, run_id, computed_at)
values (:now, :run_id, transaction_timestamp())
on conflict (only_row) do update
set as_of = excluded.as_of, run_id = excluded.run_id, computed_at = excluded.computed_at
where (old.as_of, old.run_id) is distinct from (excluded.as_of, excluded.run_id)
