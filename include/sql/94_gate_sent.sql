-- gate_sent: what the ledger says was sent of late.
--
-- reads   messages
-- writes  none
-- params  now timestamptz, days int
-- re-run  safe: reads only
select
    message_id,
    attempt,
    content_hash,
    send_at,
    handed_over_at,
    finalized_at,
    expires_at
from messages
where
    state = 'sent'
    and (finalized_at is null or finalized_at > cast(:now as timestamptz) - make_interval(days => cast(:days as int)))
