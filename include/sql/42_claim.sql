-- claim: the last look. Every rule is read again for the locked messages; what passes becomes `sending` for this worker,
-- what does not gets its reason. Stale feeds, closed windows and caps only put off, until the message expires.
-- Whatever is due for one customer is ranked by priority, deadline, due time, id: the order of planning decides nothing.
-- With `ghosts` the same rules give ghosts their turn, as if the control group they are of were written to: they compete with the
-- real messages in `ids`, which are left as they are.
--
-- reads   enrolments, campaign_versions, recipients, consents, suppressions, orders, returns, reviews, tickets,
--         customer_features, segment_memberships, events, coupons, breaks, turns, holdouts
-- writes  messages: scheduled -> sending, expired, cancelled, skipped, held (no coupon left), or later; attempts;
--         ghost_messages: scheduled -> went, expired, cancelled, skipped, or later
-- params  ids uuid[], worker text, now timestamptz, windows jsonb, blackouts date[], holidays jsonb,
--         stale_feeds text[], rules jsonb, reach interval, when_full text, spread interval, ghosts boolean
-- re-run  safe: only rows still scheduled are touched
with asked as (
    select
        m.*,
        e.version,
        e.order_id,
        e.watch_from,
        e.exited_at
    from turns as m
    inner join enrolments as e on m.enrolment_id = e.enrolment_id
    -- by its key, not by the index of what is due: that is long
    where m.message_id = any(cast(:ids as uuid [])) and coalesce(m.state, '') = 'scheduled'
),

-- a batch is of a few campaigns: what the rules ask of their files is read once and not for each message
versions as materialized (
    select
        v.campaign_id,
        v.version,
        v.definition,
        v.definition -> 'exit_on' as exit_on,
        v.definition -> 'exit_on' ?| array['left_segment', 'clicked', 'rated_low', 'over', 'rated', 'delivered', 'superseded'] as passage_ends,
        v.definition -> 'stop_while' as stop_while,
        v.definition ->> 'topic' as topic,
        v.definition ->> 'at_most_every_seconds' as every
    from (select distinct a.campaign_id, a.version from asked as a) as d
    inner join campaign_versions as v on d.campaign_id = v.campaign_id and d.version = v.version
),

steps as materialized (
    select
        v.campaign_id,
        v.version,
        s.step ->> 'id' as step_id,
        jsonb_typeof(s.step -> 'only_if') = 'object' or s.step ->> 'branch' is not null as conditional,
        jsonb_typeof(s.step -> 'coupon') = 'object' as coupon
    from versions as v
    cross join lateral jsonb_array_elements(v.definition -> 'steps') as s (step)
),

due as materialized (
    select
        m.message_id,
        m.campaign_id,
        m.customer_id,
        m.step_id,
        m.kind,
        m.priority,
        m.send_at,
        m.expires_at,
        m.channel,
        m.ghost,
        -- the control group a ghost stands for: all marketing, or its campaign
        case
            when not m.ghost then null
            when exists (select 1 from holdouts as g where g.customer_id = m.customer_id and g.campaign_id = '' and g.held) then ''
            else m.campaign_id
        end as control,
        case when s.conditional then step_refused(v.definition, m.step_id, m.enrolment_id, :now) end as unfit,
        case when v.passage_ends then passage_fact(v.definition, m.enrolment_id, :now) end as passage_fact,
        coalesce(s.coupon, false) as coupon,
        m.reason as last_reason,
        m.detail as last_detail,
        m.order_id,
        m.watch_from,
        m.exited_at,
        v.exit_on,
        v.stop_while,
        v.topic,
        v.every,
        r.zone,
        coalesce(r.country, '') as country,
        cast(:blackouts as date []) || coalesce(h.days, '{}') as blackouts,
        w.opens,
        w.closes,
        w.weekdays,
        -- what waited for the end of a pause is spread like what waited for a window
        case
            when m.kind = 'marketing' and m.send_at < w.resumed then
                w.resumed + cast(:spread as interval)
                * (('x' || substr(md5(m.message_id::text || extract(epoch from w.resumed)), 1, 6))::bit(24)::int / 16777216.0)
        end as after_pause,
        cardinality(cast(:stale_feeds as text [])) > 0 and rests_on_stale(v.definition, r.source_id, :stale_feeds) as stale
    from asked as m
    inner join versions as v on m.campaign_id = v.campaign_id and m.version = v.version
    left join steps as s on m.campaign_id = s.campaign_id and m.version = s.version and m.step_id = s.step_id
    cross join lateral (
        -- one by one: joined as a whole, the view would be worked out for every customer there is
        select
            q.zone,
            q.source_id,
            q.country
        from recipients as q
        where q.customer_id = m.customer_id
        limit 1
    ) as r
    inner join jsonb_to_recordset(:windows) as w (campaign_id text, opens time, closes time, weekdays int [], resumed timestamptz)
        on m.campaign_id = w.campaign_id
    left join jsonb_to_recordset(:holidays) as h (country text, days date []) on r.country = h.country
),

-- a few zones and countries, each asked once
openings as materialized (
    select
        d.campaign_id,
        d.zone,
        d.country,
        next_opening(:now, d.zone, d.opens, d.closes, d.weekdays, d.blackouts) as opening
    from (
        select distinct x.campaign_id, x.zone, x.country, x.opens, x.closes, x.weekdays, x.blackouts from due as x where x.kind = 'marketing'
    ) as d
),

-- materialized: what follows names each fact several times, and would ask for it as often. The functions in here give rows and are
-- written into this statement: called for each message they would cost ten times as much
facts as materialized (
    select
        d.*,
        coalesce(x.fact, d.passage_fact) as fact,
        u.reason as unreachable,
        s.fact as stop,
        b.until as break_until,
        case when d.kind = 'marketing' then o.opening else cast(:now as timestamptz) end as opening
    from due as d
    cross join lateral exit_facts(d.exit_on, d.customer_id, d.order_id, d.watch_from, :now) as x
    left join lateral (
        select r.reason
        from reachability(d.channel, d.kind, d.topic, :now) as r
        where r.customer_id = d.customer_id
    ) as u on true
    cross join lateral stop_facts(d.stop_while, d.customer_id, :now) as s
    left join lateral running_breaks(d.customer_id, :now) as b on d.kind = 'marketing'
    left join openings as o on d.campaign_id = o.campaign_id and d.zone = o.zone and d.country = o.country
),

judged as (
    select
        f.*,
        case
            when f.expires_at <= :now and f.stale then 'feed_stale'
            when f.expires_at <= :now and f.last_reason in ('capped', 'on_break', 'quota') then f.last_reason
            when f.expires_at <= :now then 'too_late'
            when f.exited_at is not null then 'enrolment_ended'
            when f.fact is not null then f.fact
            when f.unreachable is not null then f.unreachable
            when f.stop is not null then f.stop
            when f.stale then 'feed_stale'
            when f.break_until is not null then 'on_break'
            when f.opening is null or f.opening > :now then 'outside_window'
            when f.after_pause > :now then 'paused'
            else f.unfit
        end as reason,
        case
            when f.expires_at <= :now then 'expired'
            when f.exited_at is not null or f.fact is not null then 'cancelled'
            when f.unreachable is not null or f.stop is not null then 'skipped'
            when
                f.unfit is not null and not f.stale and f.break_until is null and f.opening <= :now
                and coalesce(f.after_pause <= :now, true)
                then 'skipped'
            else 'scheduled'
        end as refused_to
    from facts as f
),

-- each message with the others it competes with: those of the same person, for ghosts those of the same control group, too
rivals as (
    select
        j.*,
        j.control as side
    from judged as j
    where not :ghosts and j.reason is null
    union all
    select
        j.*,
        w.control
    from (select distinct d.customer_id, d.control from due as d where d.ghost) as w
    inner join judged as j on w.customer_id = j.customer_id and (not j.ghost or w.control = j.control)
    where :ghosts and j.reason is null
),

wanting as (
    select
        j.customer_id,
        j.zone,
        j.side as control,
        count(*) as many,
        max(cast(j.every as double precision)) as longest,
        jsonb_agg(
            jsonb_build_object(
                'id', j.message_id,
                'name', j.campaign_id || '/' || j.step_id,
                'campaign', j.campaign_id,
                'channel', j.channel,
                'kind', j.kind,
                'topic', j.topic,
                'every', j.every
            )
            order by j.priority, j.expires_at, j.send_at, j.message_id
        ) as messages
    from rivals as j
    group by j.customer_id, j.zone, j.side
),

shared as (
    select
        w.control,
        o.message_id,
        o.reason,
        o.free_at,
        o.winner
    from wanting as w
    cross join lateral recent_messages(
        w.customer_id,
        cast(:now as timestamptz) - greatest(cast(:reach as interval), make_interval(secs => coalesce(w.longest, 0))),
        :now,
        w.control
    ) as r
    cross join lateral share_out(w.messages, r.recent, :rules, w.zone, :now) as o
    -- who gets one message and got nothing has nothing to share
    where w.many > 1 or r.recent is not null
),

verdicts as materialized (
    select
        j.message_id,
        j.ghost,
        j.expires_at,
        j.zone,
        j.opens,
        j.closes,
        j.weekdays,
        j.blackouts,
        j.opening,
        j.after_pause,
        coalesce(j.reason, o.reason, case when k.lacking then 'coupon_exhausted' end) as reason,
        coalesce(o.winner, case when j.reason = j.last_reason then j.last_detail end) as detail,
        coalesce(o.free_at, case when j.reason = 'on_break' then j.break_until end) as free_at,
        case
            when j.reason is not null then j.refused_to
            when o.reason is null and k.lacking then 'held'
            when o.reason is null then 'sending'
            when o.reason = 'capped' and :when_full = 'defer' then 'scheduled'
            else 'skipped'
        end as state
    from judged as j
    left join shared as o on j.message_id = o.message_id and j.control is not distinct from o.control
    cross join lateral (
        select
            j.coupon and not j.ghost
            and not exists (select 1 from coupons as c where c.message_id = j.message_id and c.state in ('reserved', 'bound')) as lacking
    ) as k
    where j.ghost = :ghosts
),

decided as (
    select
        v.message_id,
        v.ghost,
        v.reason,
        v.detail,
        v.expires_at,
        v.state,
        case
            when v.state <> 'scheduled' then null
            when v.reason = 'paused' then v.after_pause
            when v.reason = 'feed_stale' then cast(:now as timestamptz) + interval '1 hour'
            else coalesce(
                spread_opening(
                    coalesce(v.free_at, v.opening), v.zone, v.opens, v.closes, v.weekdays, v.blackouts, :spread, v.expires_at,
                    v.message_id
                ),
                v.expires_at
            )
        end as later
    from verdicts as v
),

claimed as (
    update messages as m
    set
        state = d.state,
        reason = d.reason,
        detail = d.detail,
        attempt = m.attempt + case when d.state = 'sending' then 1 else 0 end,
        claimed_by = case when d.state = 'sending' then :worker else m.claimed_by end,
        claimed_at = case when d.state = 'sending' then cast(:now as timestamptz) else m.claimed_at end,
        handed_over_at = case when d.state = 'sending' then null else m.handed_over_at end,
        finalized_at = case when d.state in ('expired', 'cancelled', 'skipped') then cast(:now as timestamptz) end,
        -- put off, yet never past its life: at that moment it is looked at once more and expires with this reason
        send_at = case when d.state = 'scheduled' then least(d.later, d.expires_at) else m.send_at end
    from decided as d
    where m.message_id = d.message_id and not d.ghost
    returning m.message_id, m.state, m.reason, m.attempt, m.max_attempts, m.template
),

started as (
    insert into attempts (message_id, attempt, worker, claimed_at)
    select c.message_id, c.attempt, :worker, :now
    from claimed as c
    where c.state = 'sending'
    returning message_id
),

haunted as (
    update ghost_messages as g
    set
        state = case when d.state = 'sending' then 'went' else d.state end,
        reason = d.reason,
        detail = d.detail,
        went_at = case when d.state = 'sending' then cast(:now as timestamptz) end,
        finalized_at = case when d.state <> 'scheduled' then cast(:now as timestamptz) end,
        send_at = case when d.state = 'scheduled' then least(d.later, d.expires_at) else g.send_at end
    from decided as d
    where g.message_id = d.message_id and d.ghost
    returning g.message_id
)

select c.message_id, cast(c.message_id as text) as key, c.state, c.reason, c.attempt, c.max_attempts, c.template
from claimed as c
