-- gate_stuck: messages claimed by a worker that neither settled nor was recovered long after its lease.
--
-- reads   messages
-- writes  none
-- params  now timestamptz, seconds int
-- re-run  safe: reads only
select message_id
from messages
where
    state = 'sending'
    and coalesce(claimed_at, '-infinity') < cast(:now as timestamptz) - make_interval(secs => cast(:seconds as int))
