-- forget_letters: kept bytes of messages that are never handed over again.
--
-- reads   messages
-- writes  kept_letters: deleted
-- params  none
-- re-run  safe: what may be handed over again is kept
delete from kept_letters as k
using messages as m
where
    k.message_id = m.message_id
    and m.state <> 'sending'
    and not (m.state = 'scheduled' and m.lost_answers > 0)
    and not (m.state = 'unknown' and m.resend_at is not null)
