-- gate_not_sent: what was given up of late, and why.
--
-- reads   messages
-- writes  none
-- params  now timestamptz, days int
-- re-run  safe: reads only
select
    message_id,
    state,
    reason,
    finalized_at
from messages
where
    state in ('failed', 'cancelled', 'skipped', 'expired', 'held')
    and (finalized_at is null or finalized_at > cast(:now as timestamptz) - make_interval(days => cast(:days as int)))
