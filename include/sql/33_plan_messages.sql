-- plan_messages: one row per due step, held until the plan is checked. The control group gets ghosts instead: the same rows in a table
-- nothing is sent from. A step whose time has passed is written as expired: history, never a late send.
-- What falls due outside its window is spread over the beginning of the next one, so that a night or a blackout day does not end
-- in a burst. What was planned before its step was moved gets its new day, and is held for the plan's check like all of it.
--
-- reads   due_steps, customers, consents, suppressions
-- writes  messages: new, or scheduled, held -> held, expired; ghost_messages
-- params  campaign text, topic text, kind text, priority int, opens time, closes time, weekdays int[], blackouts date[], holidays jsonb,
--         calendar_revision bigint, now timestamptz, run_id text, spread interval, office_opens time, office_closes time,
--         office_days int[], office_closed date[]
-- re-run  safe: the id is made from enrolment and step
-- a million messages have a few hundred different wall times, instants, zones and countries
with walls as materialized (
    select
        w.wall,
        w.zone,
        local_instant(w.wall, w.zone) as due_at
    from (select distinct d.wall, d.zone from due_steps as d where d.exact_at is null) as w
),

timed as materialized (
    select
        d.*,
        uuid_of('message', d.enrolment_id::text, d.step_id) as message_id,
        case
            when d.office then coalesce(
                next_opening(f.at, d.zone, :office_opens, :office_closes, :office_days, cast(:office_closed as date [])), f.at
            )
            else f.at
        end as due_at
    from due_steps as d
    left join walls as w on d.wall = w.wall and d.zone = w.zone and d.exact_at is null
    cross join lateral (select greatest(d.start_at, coalesce(d.exact_at, w.due_at)) as at) as f
),

opened as materialized (
    select
        d.due_at,
        d.zone,
        d.country,
        next_opening(d.due_at, d.zone, :opens, :closes, :weekdays, cast(:blackouts as date []) || coalesce(h.days, '{}')) as opening
    from (select distinct t.due_at, t.zone, t.country from timed as t where t.given_up is null and :kind <> 'transactional') as d
    left join jsonb_to_recordset(:holidays) as h (country text, days date []) on d.country = h.country
),

openings as materialized (
    select
        o.*,
        -- how much of the window what was put off is spread over
        case
            when o.opening > o.due_at then least(
                cast(:spread as interval), local_instant(cast(o.opening at time zone o.zone as date) + :closes, o.zone) - o.opening
            )
        end as room
    from opened as o
),

aimed as materialized (
    select
        t.message_id,
        t.enrolment_id,
        t.arm,
        t.customer_id,
        t.step_id,
        t.channels,
        t.variant,
        t.given_up,
        t.moved,
        t.due_at,
        case
            when t.variant is null then t.template
            else (select v ->> 'template' from jsonb_array_elements(t.variants) as v where v ->> 'name' = t.variant)
        end as template,
        case
            when t.given_up is not null then null
            when :kind = 'transactional' then t.due_at
            when o.room is null or o.opening >= t.due_at + make_interval(secs => t.expires_seconds::double precision) then o.opening
            -- as spread_opening has it
            else
                o.opening
                + least(o.room, t.due_at + make_interval(secs => t.expires_seconds::double precision) - o.opening)
                * (('x' || substr(md5(t.message_id::text || extract(epoch from o.opening)), 1, 6))::bit(24)::int / 16777216.0)
        end as send_at,
        t.due_at + make_interval(secs => t.expires_seconds::double precision) as expires_at
    from timed as t
    left join openings as o on t.due_at = o.due_at and t.zone = o.zone and t.country is not distinct from o.country
),

placed as (
    select
        a.*,
        case
            when a.given_up is not null then a.given_up
            when a.expires_at <= :now then 'too_late'
            when coalesce(a.send_at >= a.expires_at, true) then 'no_window'
            else 'awaiting_check'
        end as reason
    from aimed as a
),

rows as (
    select
        p.*,
        case
            when cardinality(p.channels) = 1 then p.channels[1]
            else (
                select k.channel
                from channel_choices(p.channels, :kind, :topic, :now) as k
                where k.customer_id = p.customer_id
            )
        end as channel,
        case when p.given_up is not null then 'skipped' when p.reason in ('too_late', 'no_window') then 'expired' else 'held' end as state,
        case when p.reason <> 'awaiting_check' then cast(:now as timestamptz) end as finalized_at
    from placed as p
),

planned as (
    insert into messages (
        message_id, enrolment_id, campaign_id, step_id, customer_id, channel, kind, template, variant, state, reason, due_at, send_at,
        expires_at, priority, calendar_revision, planned_at, run_id, finalized_at
    )
    select
        r.message_id, r.enrolment_id, :campaign, r.step_id, r.customer_id, r.channel, :kind, r.template, r.variant, r.state, r.reason, r.due_at,
        coalesce(r.send_at, r.due_at), r.expires_at, :priority, :calendar_revision, :now, :run_id, r.finalized_at
    from rows as r
    where r.arm = 'treated' and not r.moved
    on conflict do nothing
    returning 1
),

moved as (
    update messages as m
    set
        state = r.state, reason = r.reason, detail = null, due_at = r.due_at, send_at = coalesce(r.send_at, r.due_at), expires_at = r.expires_at,
        calendar_revision = :calendar_revision, planned_at = :now, finalized_at = r.finalized_at
    from rows as r
    -- by its key, as in due_steps
    where m.message_id = r.message_id and r.arm = 'treated' and r.moved and coalesce(m.state, '') in ('scheduled', 'held')
    returning 1
),

moved_ghosts as (
    update ghost_messages as g
    set
        state = case r.state when 'held' then 'scheduled' else r.state end, reason = case when r.state <> 'held' then r.reason end, detail = null,
        due_at = r.due_at, send_at = coalesce(r.send_at, r.due_at), expires_at = r.expires_at, planned_at = :now, finalized_at = r.finalized_at
    from rows as r
    where g.message_id = r.message_id and r.arm = 'holdout' and r.moved and coalesce(g.state, '') = 'scheduled'
    returning 1
),

ghosts as (
    -- a ghost waits for no check of its own: its turn comes only once nothing of the same run is held any more
    insert into ghost_messages (
        message_id, enrolment_id, campaign_id, step_id, customer_id, channel, kind, state, reason, due_at, send_at, expires_at, priority,
        planned_at, run_id, finalized_at
    )
    select
        r.message_id, r.enrolment_id, :campaign, r.step_id, r.customer_id, r.channel, :kind,
        case r.state when 'held' then 'scheduled' else r.state end,
        case when r.state <> 'held' then r.reason end, r.due_at, coalesce(r.send_at, r.due_at), r.expires_at, :priority, :now, :run_id,
        r.finalized_at
    from rows as r
    where r.arm = 'holdout' and not r.moved
    on conflict do nothing
    returning 1
)

select
    (select count(*) from planned) as planned,
    (select count(*) from moved) as moved,
    (select count(*) from ghosts) as ghosts
