-- last_good_metrics: what the gate measured when it last let the data through.
--
-- reads   gate_results
-- writes  none
-- params  gate text, subject text, since timestamptz, now timestamptz
-- re-run  safe: reads only
select metrics
from gate_results
where gate = :gate and subject = :subject and success and checked_at <= :now and checked_at >= :since
order by checked_at desc, gate_result_id desc
limit 1
