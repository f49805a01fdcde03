-- deliverability: what came back of each campaign's marketing lately; campaigns that are stopped already are left out.
-- After a stop of this gate was lifted, what went before it counts no more: somebody has looked at it.
--
-- reads   messages, events, kill_switches
-- params  now timestamptz, window interval, enough int, gate text
-- re-run  safe: only reads
with looked_at as (
    select k.name, max(k.lifted_at) as at
    from kill_switches as k
    where k.scope = 'campaign' and k.stopped_by = :gate
    group by k.name
),

went as (
    select
        m.campaign_id,
        m.message_id,
        m.state = 'failed' as refused
    from messages as m
    left join looked_at as l on m.campaign_id = l.name
    where
        m.kind = 'marketing'
        and (m.state in ('sent', 'unknown') or (m.state = 'failed' and m.reason like 'refused%'))
        and coalesce(m.handed_over_at, m.finalized_at) > greatest(cast(:now as timestamptz) - cast(:window as interval), l.at)
        and coalesce(m.handed_over_at, m.finalized_at) <= :now
        and not exists (
            select 1 from kill_switches as k
            where k.scope = 'campaign' and k.name = m.campaign_id and k.lifted_at is null
        )
)

select
    w.campaign_id,
    count(*) as handed_over,
    count(*) filter (
        where w.refused or exists (select 1 from events as e where e.message_id = w.message_id and e.kind = 'bounced')
    ) as bounced,
    count(*) filter (
        where exists (select 1 from events as e where e.message_id = w.message_id and e.kind = 'complained')
    ) as complained
from went as w
group by w.campaign_id
having count(*) >= cast(:enough as int)
order by w.campaign_id
