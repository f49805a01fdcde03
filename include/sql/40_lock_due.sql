-- lock_due: reserve the customers of up to `batch` due messages for this transaction; other workers skip them.
-- The customer is locked and not the message: whatever is due for one person is judged together, by one worker.
--
-- reads   messages, customers (row locks)
-- params  channel text, campaigns text[], stopped_shops text[], silent_shops text[], now timestamptz, batch int, shard int, shards int
-- re-run  safe: changes nothing
select c.customer_id
from (
    select m.customer_id, m.kind
    from messages as m
    where
        m.channel = :channel
        and m.state = 'scheduled'
        and date_bin('10 minutes', m.send_at, timestamptz 'epoch') <= :now -- where the index ends
        and m.send_at <= :now
        and m.campaign_id = any(cast(:campaigns as text []))
        -- an equality of an expression counts as rare: then everything due is sorted for every batch
        and (cast(:shards as int) = 1 or abs(mod(m.customer_id, cast(:shards as int)) - cast(:shard as int)) < 1)
    -- the highest priority first, over all campaigns; within ten minutes by customers, whose rows lie side by side
    order by m.priority, date_bin('10 minutes', m.send_at, timestamptz 'epoch'), m.customer_id, m.send_at
) as d
cross join lateral (
    -- looked up one by one, in that order, until the batch is full: a join as a whole would lock everybody who is due
    select p.customer_id
    from customers as p
    where
        p.customer_id = d.customer_id
        and not (p.source_id = any(cast(:stopped_shops as text [])) and d.kind = 'marketing')
        and p.source_id <> all(cast(:silent_shops as text []))
    for no key update skip locked
) as c
limit :batch
