-- gate_unproven: messages whose state contradicts their attempts: sent without a hand-over, or given up though accepted.
--
-- reads   messages, attempts
-- writes  none
-- params  now timestamptz, days int
-- re-run  safe: reads only
select m.message_id
from messages as m
where
    m.state in ('sent', 'failed', 'cancelled', 'skipped', 'expired')
    and m.finalized_at > cast(:now as timestamptz) - make_interval(days => cast(:days as int))
    and (
        (
            m.state = 'sent'
            and not exists (
                select 1 from attempts as a where a.message_id = m.message_id and a.handed_over_at is not null
            )
        )
        or (
            m.state <> 'sent'
            and exists (select 1 from attempts as a where a.message_id = m.message_id and a.outcome = 'accepted')
        )
    )
