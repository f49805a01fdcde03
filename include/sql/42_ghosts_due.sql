-- ghosts_due: ghosts whose turn may have come, and the real messages due for the same people, which they compete with.
-- A ghost waits as long as anything of its campaign and run is held for a check, an approval or a canary.
--
-- reads   ghost_messages (row locks), messages, customers
-- params  channel text, campaigns text[], stopped_shops text[], now timestamptz, batch int, shard int, shards int
-- re-run  safe: changes nothing
with ready as (
    select g.campaign_id, g.run_id
    from ghost_messages as g
    where
        g.channel = :channel
        and g.state = 'scheduled'
        and g.send_at <= :now
        and g.campaign_id = any(cast(:campaigns as text []))
    group by g.campaign_id, g.run_id
),

waiting as (
    select r.campaign_id, r.run_id
    from ready as r
    where exists (
        select 1 from messages as m
        where
            m.campaign_id = r.campaign_id
            and m.run_id = r.run_id
            and m.state = 'held'
            and m.reason in ('awaiting_check', 'awaiting_approval', 'awaiting_canary', 'canary_failed')
    )
),

-- whole people: what is due for one of them is judged together
picked as (
    select distinct g.customer_id
    from ghost_messages as g
    where
        g.channel = :channel
        and g.state = 'scheduled'
        and g.send_at <= :now
        and g.campaign_id = any(cast(:campaigns as text []))
        -- as in lock_due: an equality of an expression counts as rare
        and (cast(:shards as int) = 1 or abs(mod(g.customer_id, cast(:shards as int)) - cast(:shard as int)) < 1)
        and not exists (
            select 1 from customers as c where c.customer_id = g.customer_id and c.source_id = any(cast(:stopped_shops as text []))
        )
        and (
            g.expires_at <= :now
            or not exists (select 1 from waiting as w where w.campaign_id = g.campaign_id and w.run_id = g.run_id)
        )
    limit :batch
),

ghosts as (
    select g.message_id, g.customer_id
    from ghost_messages as g
    where
        g.customer_id in (select p.customer_id from picked as p)
        and g.channel = :channel
        and g.state = 'scheduled'
        and g.send_at <= :now
        and g.campaign_id = any(cast(:campaigns as text []))
        and (
            g.expires_at <= :now
            or not exists (select 1 from waiting as w where w.campaign_id = g.campaign_id and w.run_id = g.run_id)
        )
    for update skip locked
)

select g.message_id, true as ghost
from ghosts as g
union all
select m.message_id, false
from messages as m
where
    m.customer_id in (select g.customer_id from ghosts as g)
    and m.channel = :channel
    and m.state = 'scheduled'
    and m.send_at <= :now
    and m.campaign_id = any(cast(:campaigns as text []))
