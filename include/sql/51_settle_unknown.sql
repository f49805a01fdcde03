-- settle_unknown: later evidence tells that a message whose answer was lost had been accepted after all.
--
-- reads   events
-- writes  messages: unknown (or about to be handed over again) -> sent
-- params  event_ids uuid[], now timestamptz
-- re-run  safe: a settled message is no longer unknown
update messages as m
set state = 'sent', reason = null, detail = 'evidence: ' || e.kind, finalized_at = :now
from events as e
where
    e.event_id = any(cast(:event_ids as uuid []))
    and e.message_id = m.message_id
    and (m.state = 'unknown' or (m.state = 'scheduled' and m.lost_answers > 0))
    and e.kind in ('delivered', 'bounced', 'complained', 'opened', 'clicked', 'scanned', 'replied', 'rated', 'unsubscribed')
