-- keep_verdict: one verdict of one gate.
--
-- reads   none
-- writes  gate_results
-- params  gate text, subject text, run_id text, now timestamptz, success boolean, suite_hash text, evaluated int,
--         failures jsonb, metrics jsonb, docs text
-- re-run  adds another row: every verdict is kept
insert into gate_results (gate, subject, run_id, as_of, checked_at, success, suite_hash, evaluated, failures, metrics, docs)
values (
    :gate, :subject, :run_id, :now, :now, :success, :suite_hash, :evaluated, cast(:failures as jsonb), cast(:metrics as jsonb), :docs
)
