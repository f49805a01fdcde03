-- lock_messages: everything due for the locked customers. A statement of its own: its snapshot is younger than the locks on
-- the customers, so what their last owner claimed is no longer seen as scheduled.
--
-- reads   messages (row locks; what somebody is cancelling right now is left to him)
-- params  people bigint[], channel text, campaigns text[], now timestamptz
-- re-run  safe: changes nothing
select m.message_id
from messages as m
where
    m.customer_id = any(cast(:people as bigint []))
    and m.channel = :channel
    and m.state = 'scheduled'
    and m.send_at <= :now
    and m.campaign_id = any(cast(:campaigns as text []))
order by m.message_id
for update skip locked
