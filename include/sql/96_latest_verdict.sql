-- latest_verdict: the newest verdict of a gate up to an instant, if it is not older than `since`.
--
-- reads   gate_results
-- writes  none
-- params  gate text, subject text, since timestamptz, now timestamptz
-- re-run  safe: reads only
select success, suite_hash
from gate_results
where gate = :gate and subject = :subject and checked_at <= :now and checked_at >= :since
order by checked_at desc, gate_result_id desc
limit 1
