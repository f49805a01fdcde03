-- note_run: on the copy of a simulation: a stage ran.
--
-- writes  runs
-- params  run_id text, stage text, subject text, now timestamptz
-- re-run  safe: the same run is noted once
insert into runs (run_id, stage, subject, as_of, origin, started_at, finished_at, outcome)
values (:run_id, :stage, :subject, :now, 'cli', :now, :now, 'done')
on conflict do nothing
