-- watch_canaries: what became of the share of every release that waits for it.
--
-- reads   canaries, canary_messages, messages, events
-- params  now timestamptz
-- re-run  safe: only reads (row locks: one watcher at a time judges a canary)
select
    c.canary_id,
    c.campaign_id,
    c.messages,
    w.waiting,
    s.drawn,
    s.underway,
    s.pending,
    s.handed_over,
    s.last_handed_over,
    s.refused,
    s.bounced,
    s.complained
from canaries as c
cross join lateral (
    select count(*) as waiting
    from messages as m
    where m.canary_id = c.canary_id and m.state = 'held' and m.reason = 'awaiting_canary'
) as w
cross join lateral (
    select
        count(*) as drawn,
        count(*) filter (where m.state = 'scheduled' and m.send_at > :now) as pending,
        -- not put off by a rule: about to go, or going
        count(*) filter (where m.state = 'sending' or (m.state = 'scheduled' and m.send_at <= :now)) as underway,
        count(*) filter (where m.state in ('sent', 'unknown', 'failed')) as handed_over,
        max(coalesce(m.handed_over_at, m.finalized_at)) filter (where m.state in ('sent', 'unknown', 'failed')) as last_handed_over,
        count(*) filter (where m.state = 'failed' and m.reason like 'refused%') as refused,
        count(*) filter (
            where m.state <> 'failed' and exists (
                select 1 from events as e where e.message_id = m.message_id and e.kind = 'bounced'
            )
        ) as bounced,
        count(*) filter (
            where exists (select 1 from events as e where e.message_id = m.message_id and e.kind = 'complained')
        ) as complained
    from canary_messages as k
    inner join messages as m on k.message_id = m.message_id
    where k.canary_id = c.canary_id
) as s
where c.outcome is null
order by c.canary_id
for update of c skip locked
