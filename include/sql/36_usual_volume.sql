-- usual_volume: per day of the plan, how much is planned and what is usual on that weekday.
-- Two measures: `planned` compares what this plan adds with what earlier days added; `sent` compares all that falls on a day,
-- released before or not, with what fell on earlier days. Days are UTC dates; what is overdue falls on today. Usual days
-- are the last 28, from the campaign's first release on; `same` are those of the same weekday.
--
-- reads   messages
-- params  campaign text, now timestamptz
-- re-run  safe: only reads
with today as (
    select cast(cast(:now as timestamptz) at time zone 'UTC' as date) as day
),

released as (
    select
        cast(m.planned_at at time zone 'UTC' as date) as planned_on,
        cast(m.send_at at time zone 'UTC' as date) as sent_on,
        count(*) as messages
    from messages as m
    where
        m.campaign_id = :campaign
        and m.state <> 'held'
        and coalesce(m.reason, '') not in ('not_approved', 'approval_expired')
        -- never part of a release: expired when it was planned
        and not (m.state = 'expired' and m.finalized_at <= m.planned_at)
    group by 1, 2
),

planned as (
    select r.planned_on as day, sum(r.messages) as messages
    from released as r
    group by 1
),

sent as (
    select r.sent_on as day, sum(r.messages) as messages
    from released as r
    group by 1
),

waiting as (
    select greatest(cast(m.send_at at time zone 'UTC' as date), t.day) as sent_on, count(*) as messages
    from messages as m
    cross join today as t
    where
        m.campaign_id = :campaign and m.state = 'held' and m.reason in ('awaiting_check', 'awaiting_approval', 'canary_failed')
    group by 1
),

wanted as (
    select
        'planned' as measure,
        t.day,
        (select coalesce(sum(w.messages), 0) from waiting as w)
        + coalesce((select p.messages from planned as p where p.day = t.day), 0) as messages
    from today as t
    union all
    select 'sent', w.sent_on, w.messages + coalesce((select s.messages from sent as s where s.day = w.sent_on), 0)
    from waiting as w
),

usual as (
    select d.day, coalesce(p.messages, 0) as planned, coalesce(s.messages, 0) as sent
    from today as t
    inner join (select min(p.day) as day from planned as p) as b on b.day is not null
    cross join lateral generate_series(greatest(t.day - 28, b.day), t.day - 1, interval '1 day') as g (at)
    cross join lateral (select cast(g.at as date) as day) as d
    left join planned as p on d.day = p.day
    left join sent as s on d.day = s.day
)

select
    w.measure,
    w.day,
    cast(w.messages as bigint) as messages,
    exists (select 1 from released) as has_run,
    coalesce(u.same, '{}') as same,
    coalesce(u.every, '{}') as every
from wanted as w
left join lateral (
    select
        array_agg(case w.measure when 'planned' then u.planned else u.sent end)
            filter (where extract(isodow from u.day) = extract(isodow from w.day)) as same,
        array_agg(case w.measure when 'planned' then u.planned else u.sent end) as every
    from usual as u
) as u on true
order by w.measure, w.day
