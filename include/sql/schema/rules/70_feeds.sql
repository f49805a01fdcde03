-- Verdicts on feeds, and what rests on them. Replaced by every `postlude init`.
-- All are "as of now_": a fact counts when it happened before that instant.

set search_path = postlude;

create or replace function postlude.feed_verdicts(now_ timestamptz, share double precision, least_ bigint)
returns table (
    source_id text, entity text, scheduled boolean, newest timestamptz, loaded_at timestamptz, lag interval, lag_limit interval,
    usual_lag interval, day date, found bigint, usual double precision, reason text
)
language sql stable as $$
with shops as (
    select
        s.source_id,
        s.time_zone as zone,
        s.complete_until,
        s.loaded_at,
        (now_ at time zone s.time_zone)::date as today,
        make_interval(secs => coalesce((s.settings ->> 'fresh_within_seconds')::double precision, 129600)) as bound,
        coalesce((s.settings ->> 'scheduled')::boolean, true) as scheduled
    from postlude.sources as s
),
-- a shop that never told of a review or return has no such feed; that is no reason to wait
feeds as (
    select s.*, 'orders' as entity, s.complete_until as newest, s.loaded_at as at from shops as s
    union all
    select s.*, e.entity, d.newest, d.at
    from shops as s
    cross join (values ('reviews'), ('returns')) as e (entity)
    cross join lateral (
        select f.newest, f.counted_at as at
        from postlude.feed_days as f
        where f.source_id = s.source_id and f.entity = e.entity
        order by f.day desc
        limit 1
    ) as d
),
-- the newest day that ought to be whole: over when it was loaded, and not after the newest row. History is what lies
-- before it, never the silence after it: a feed that stays dead does not become usual
judged as (
    select
        f.*,
        (f.newest at time zone f.zone)::date as newest_day,
        least(
            (f.newest at time zone f.zone)::date, (coalesce(f.at, now_) at time zone f.zone)::date - 1, f.today - 1
        ) as last_day,
        (select min(d.day) from postlude.feed_days as d where d.source_id = f.source_id and d.entity = f.entity) as first_day
    from feeds as f
),
-- five weeks are all that is read, however long the history
recent as materialized (
    select d.source_id, d.entity, d.day, d.rows
    from judged as j
    inner join postlude.feed_days as d
        on d.source_id = j.source_id and d.entity = j.entity and d.day between j.last_day - 34 and j.last_day
),
-- a week of days, each with the same weekday of the four weeks before it
week as (
    select
        j.source_id,
        j.entity,
        k as back,
        j.last_day - k as day,
        count(*) filter (where p.day >= j.first_day) as samples,
        percentile_cont(0.5) within group (order by coalesce(d.rows, 0)) filter (where p.day >= j.first_day) as usual,
        max(coalesce(d.rows, 0)) filter (where p.day >= j.first_day) as most
    from judged as j
    cross join generate_series(0, 6) as k
    cross join generate_series(1, 4) as w
    cross join lateral (select j.last_day - k - 7 * w as day) as p
    left join recent as d on d.source_id = j.source_id and d.entity = j.entity and d.day = p.day
    group by j.source_id, j.entity, k, j.last_day
),
-- weekdays on which this shop never has any; more than three of them are no pattern but a small shop
closed as (
    select w.source_id, w.entity, array_agg(extract(isodow from w.day)::int) as weekdays
    from week as w
    where w.samples >= 3 and w.most = 0
    group by w.source_id, w.entity
    having count(*) <= 3
),
measured as (
    select
        j.*,
        greatest(now_ - j.newest, interval '0') as lag,
        j.bound + coalesce(e.excused, interval '0') as hard_limit,
        case when u.samples >= 3 then u.usual end as usual_lag,
        -- of the last three whole days the worst
        w.day as thin_day,
        w.found as thin_found,
        w.usual as thin_usual,
        t.found as last_found,
        t.usual as last_usual,
        -- too few a day to tell a thin day from chance
        (select avg(a.usual) from week as a where a.source_id = j.source_id and a.entity = j.entity and a.samples >= 3) as daily
    from judged as j
    left join closed as c on c.source_id = j.source_id and c.entity = j.entity
    left join lateral (
        select sum(
            case when g::date = j.today then now_ - (g::date::timestamp at time zone j.zone) else interval '24 hours' end
        ) as excused
        from generate_series(j.newest_day + 1, least(j.today, j.newest_day + 35), interval '1 day') as g
        where extract(isodow from g)::int = any(c.weekdays)
    ) as e on true
    left join lateral (
        select
            count(m.complete_until) as samples,
            percentile_disc(0.5) within group (order by greatest(t.at - m.complete_until, interval '0')) as usual
        from generate_series(1, 4) as n
        cross join lateral (select ((now_ at time zone j.zone) - make_interval(days => 7 * n)) at time zone j.zone as at) as t
        cross join lateral (
            select k.complete_until from postlude.feed_marks as k
            where k.source_id = j.source_id and k.loaded_at <= t.at
            order by k.loaded_at desc
            limit 1
        ) as m
        where j.entity = 'orders'
    ) as u on true
    left join lateral (
        select x.day, x.usual, coalesce(d.rows, 0) as found
        from week as x
        left join recent as d on d.source_id = x.source_id and d.entity = x.entity and d.day = x.day
        where
            x.source_id = j.source_id and x.entity = j.entity and x.back <= 2 and x.samples >= 3 and x.usual >= least_
            and coalesce(d.rows, 0) < share * x.usual
        order by coalesce(d.rows, 0) / x.usual, x.back
        limit 1
    ) as w on true
    left join lateral (
        select coalesce(d.rows, 0) as found, case when x.samples >= 3 then x.usual end as usual
        from week as x
        left join recent as d on d.source_id = x.source_id and d.entity = x.entity and d.day = x.day
        where x.source_id = j.source_id and x.entity = j.entity and x.back = 0
    ) as t on true
),
-- a feed that usually is on time may lag half of `fresh_within` beyond that; `fresh_within` itself is the end for all.
-- Days on which the shop is closed do not count
limited as (
    select
        m.*,
        case
            when m.usual_lag is null then m.hard_limit
            else least(m.usual_lag + m.bound / 2, m.hard_limit)
        end as lag_limit
    from measured as m
)
select
    l.source_id,
    l.entity,
    l.scheduled,
    l.newest,
    l.at,
    l.lag,
    l.lag_limit,
    l.usual_lag,
    coalesce(l.thin_day, l.last_day),
    case when l.first_day is not null then coalesce(l.thin_found, l.last_found)::bigint end,
    coalesce(l.thin_usual, l.last_usual),
    case
        when l.newest is null then 'never_loaded'
        when l.entity <> 'orders' and coalesce(l.daily, 0) < least_ then null
        when l.lag > l.lag_limit and l.at > l.newest + l.bound / 2 then 'no_new_' || l.entity
        when l.lag > l.lag_limit then 'late'
        -- a run as of the past: later rows are there, so these days were told in full
        when l.newest > now_ + interval '1 day' then null
        when l.thin_day is not null then 'too_few_' || l.entity
    end
from limited as l
$$;
comment on function postlude.feed_verdicts is 'The freshness gate: each feed against its own weekdays of four weeks; reason null: fresh. docs/gates.md tells the rule.';

create or replace function postlude.rests_on_stale(definition jsonb, source text, stale text[]) returns boolean
language sql immutable parallel safe as $$
    -- versions stored before feeds were named rest on orders
    select
        coalesce((definition ->> 'rests_on_absence')::boolean, true)
        and exists (
            select from jsonb_array_elements_text(
                case jsonb_typeof(definition -> 'feeds') when 'array' then definition -> 'feeds' else '["orders"]' end
            ) as d (feed)
            where source || '/' || d.feed = any(stale)
        )
$$;
comment on function postlude.rests_on_stale is 'Does a campaign rest on a feed of this source that is stale? `stale`: source/feed.';
