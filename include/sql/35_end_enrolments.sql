-- end_enrolments: what ended a passage is noted once, and what it still had planned is cancelled. Both arms end by the same rules.
--
-- reads   campaign_versions, customers, consents, suppressions, orders, returns, reviews, events, turns
-- writes  enrolments: exited; messages: scheduled, held -> cancelled; ghost_messages: scheduled -> cancelled
-- params  campaigns text[], now timestamptz, timelines jsonb
-- re-run  safe: an ended enrolment stays ended
-- what the rules ask of a file is read once, and not for each passage
with versions as materialized (
    select
        v.campaign_id,
        v.version,
        v.definition,
        v.definition -> 'exit_on' as exit_on,
        jsonb_exists_any(
            v.definition -> 'exit_on', array['left_segment', 'clicked', 'rated_low', 'over', 'rated', 'delivered', 'superseded']
        ) as passage_ends,
        channels_of(v.definition) as channels,
        v.definition ->> 'kind' as kind,
        v.definition ->> 'topic' as topic,
        v.definition ->> 'goal' as goal,
        jsonb_array_length(v.definition -> 'steps') as steps,
        make_interval(secs => t.seconds::double precision) as timeline
    from jsonb_to_recordset(:timelines) as t (campaign_id text, seconds numeric)
    inner join campaign_versions as v on t.campaign_id = v.campaign_id
),

under_way as (
    select
        e.enrolment_id,
        e.customer_id,
        e.order_id,
        e.watch_from,
        v.definition,
        v.exit_on,
        v.passage_ends,
        v.channels,
        v.kind,
        v.topic,
        v.goal,
        v.steps,
        e.anchor_at + v.timeline < :now as over
    from enrolments as e
    inner join versions as v on e.campaign_id = v.campaign_id and e.version = v.version
    where e.exited_at is null and e.campaign_id = any(cast(:campaigns as text []))
),

-- materialized: written out into each place that asks for it, the plan is eight times as large
facts as materialized (
    select
        u.enrolment_id,
        coalesce(
            x.fact,
            case when u.passage_ends then passage_fact(u.definition, u.enrolment_id, :now) end
        ) as fact,
        r.reason as unreachable,
        u.goal,
        u.over,
        -- a step that waits for an event has no message yet
        coalesce(m.planned, 0) as planned,
        u.steps,
        coalesce(m.open > 0, false) as open_messages,
        coalesce(m.told > 0, false) as told
    from under_way as u
    left join lateral reachability_on(u.channels, u.kind, u.topic, :now) as r on u.customer_id = r.customer_id
    left join lateral exit_facts(u.exit_on, u.customer_id, u.order_id, u.watch_from, :now) as x on true
    left join lateral (
        select
            count(*) as planned,
            -- an unknown one that is handed over again is not over
            count(*) filter (where m.state in ('scheduled', 'held', 'sending') or m.resend_at is not null) as open,
            -- what is unknown may have arrived, and may stay unknown for ever
            count(*) filter (where m.state in ('sent', 'unknown')) as told
        from turns as m
        where m.enrolment_id = u.enrolment_id
    ) as m on true
),

endings as (
    select
        f.enrolment_id,
        case
            when f.fact = f.goal then 'goal_met'
            when f.fact in ('returned', 'order_cancelled') then 'returned'
            when f.fact = 'rated_low' then 'stopped'
            when f.fact is not null then 'left_audience'
            when f.unreachable is not null then 'suppressed'
            when f.planned = 0 then null
            when (f.planned >= f.steps or f.over) and not f.open_messages and f.told then 'completed'
            when (f.planned >= f.steps or f.over) and not f.open_messages then 'expired'
        end as exit_reason,
        coalesce(f.fact, f.unreachable) as reason
    from facts as f
),

ended as (
    update enrolments as e
    set exited_at = :now, exit_reason = n.exit_reason
    from endings as n
    -- by its key, and not by the index of all passages under way
    where e.enrolment_id = n.enrolment_id and n.exit_reason is not null and coalesce(e.exited_at, 'infinity') = 'infinity'
    returning e.enrolment_id, n.exit_reason, n.reason
),

cancelled as (
    update messages as m
    set state = 'cancelled', reason = coalesce(d.reason, 'enrolment_ended'), finalized_at = :now
    from ended as d
    -- by its key, as in due_steps
    where m.enrolment_id = d.enrolment_id and coalesce(m.state, '') in ('scheduled', 'held')
    returning m.message_id
),

laid_to_rest as (
    update ghost_messages as g
    set state = 'cancelled', reason = coalesce(d.reason, 'enrolment_ended'), finalized_at = :now
    from ended as d
    where g.enrolment_id = d.enrolment_id and coalesce(g.state, '') = 'scheduled'
    returning g.message_id
)

select
    (select count(*) from ended) as ended,
    (select count(*) from ended as d where d.exit_reason = 'goal_met') as goal_met,
    (select count(*) from cancelled) as cancelled
