-- report_days: sent per day of the last 30, planned per day of the next 30.
--
-- reads   messages
-- params  now timestamptz
-- re-run  safe: only reads
select
    cast((case when m.state = 'sent' then m.handed_over_at else m.send_at end) at time zone 'UTC' as date) as day,
    m.campaign_id as campaign,
    case m.state when 'sent' then 'sent' else 'planned' end as what,
    count(*) as messages
from messages as m
where
    (m.state = 'sent' and m.handed_over_at > cast(:now as timestamptz) - interval '30 days' and m.handed_over_at <= :now)
    or (m.state = 'scheduled' and m.send_at < cast(:now as timestamptz) + interval '30 days')
group by 1, 2, 3
order by 1, 2, 3
