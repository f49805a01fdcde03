-- recommend_mark: the instant and the rules the counts now speak of.
--
-- reads   none
-- writes  recommend_state
-- params  now timestamptz, run_id text, rules text
-- re-run  safe
insert into recommend_state (as_of, run_id, rules) values (:now, :run_id, :rules)
on conflict (only_row) do update set as_of = excluded.as_of, run_id = excluded.run_id, rules = excluded.rules
