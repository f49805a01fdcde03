-- report_gates: the newest verdict of every gate.
--
-- reads   gate_results
-- params  now timestamptz
-- re-run  safe: only reads
select distinct on (g.gate, g.subject)
    g.gate, g.subject, g.success, g.evaluated, g.as_of, g.checked_at, g.docs, jsonb_array_length(g.failures) as remarks
from gate_results as g
where g.as_of <= :now
order by g.gate, g.subject, g.checked_at desc
