-- gate_event_shares: bounces, complaints and lost answers per campaign, of what was handed over in the last days.
-- A campaign with few messages is left out: one bounce of three is no share.
--
-- reads   messages, events
-- writes  none
-- params  now timestamptz, days int, enough int
-- re-run  safe: reads only
select
    m.campaign_id,
    count(*) as handed_over,
    cast(count(*) filter (where m.bounced) as numeric) / count(*) as bounced_share,
    cast(count(*) filter (where m.complained) as numeric) / count(*) as complained_share,
    cast(count(*) filter (where m.state = 'unknown') as numeric) / count(*) as unknown_share
from (
    select
        campaign_id,
        state,
        exists (
            select 1 from events as e where e.message_id = messages.message_id and e.kind = 'bounced'
        ) as bounced,
        exists (
            select 1 from events as e where e.message_id = messages.message_id and e.kind = 'complained'
        ) as complained
    from messages
    where
        state in ('sent', 'unknown', 'failed')
        and handed_over_at > cast(:now as timestamptz) - make_interval(days => cast(:days as int))
) as m
group by m.campaign_id
having count(*) >= cast(:enough as int)
