-- mark_features: note the instant customer_features speaks of, which run wrote it, and by which rules.
--
-- reads   nothing
-- writes  feature_state; computed_at is the wall clock, for people: nothing is decided by it
-- params  now timestamptz, run_id text, rules text, everybody boolean
-- re-run  safe: the same run at the same instant changes nothing
insert into feature_state as old (as_of, run_id, computed_at, rules)
values (:now, :run_id, transaction_timestamp(), :rules)
on conflict (only_row) do update
set
    as_of = excluded.as_of,
    run_id = excluded.run_id,
    computed_at = excluded.computed_at,
    rules = excluded.rules,
    -- everybody was derived anew: everybody's memberships are looked at
    segments = case when not cast(:everybody as boolean) then old.segments end
where
    (old.as_of, old.run_id, old.rules) is distinct from (excluded.as_of, excluded.run_id, excluded.rules)
    or (cast(:everybody as boolean) and old.segments is not null)
