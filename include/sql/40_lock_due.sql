-- lock_due: reserve up to `batch` due messages for this transaction; other workers skip them.
--
-- reads   messages (row locks)
-- params  channel text, campaigns text[], now timestamptz, batch int, shard int, shards int
-- re-run  safe: changes nothing
select m.message_id, m.customer_id
from messages as m
where
    m.channel = :channel
    and m.state = 'scheduled'
    and m.send_at <= :now
    and m.campaign_id = any(cast(:campaigns as text []))
    and mod(m.customer_id, cast(:shards as int)) = :shard
order by m.send_at, m.message_id
limit :batch
for update skip locked
