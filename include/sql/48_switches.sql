-- switches: every switch in force, and on request those lifted.
--
-- reads   kill_switches
-- params  lifted_too boolean
-- re-run  safe: only reads
select
    k.switch_id,
    k.scope,
    k.name,
    k.transactional_too,
    k.why,
    k.stopped_by,
    k.since,
    k.lifted_at,
    k.lifted_by,
    k.lift_reason
from kill_switches as k
where k.lifted_at is null or :lifted_too
order by k.switch_id
