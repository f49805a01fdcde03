-- end_enrolments: what ended a passage is noted once, and what it still had planned is cancelled. Both arms end by the same rules.
--
-- reads   campaign_versions, customers, consents, suppressions, orders, returns, reviews, events, turns
-- writes  enrolments: exited; messages: scheduled, held -> cancelled; ghost_messages: scheduled -> cancelled
-- params  campaigns text[], now timestamptz, timelines jsonb
-- re-run  safe: an ended enrolment stays ended
with under_way as (
    select
        e.enrolment_id,
        e.arm,
        e.customer_id,
        e.order_id,
        e.watch_from,
        v.definition,
        v.definition -> 'exit_on' as exit_on,
        channels_of(v.definition) as channels,
        v.definition ->> 'kind' as kind,
        v.definition ->> 'topic' as topic,
        e.anchor_at + make_interval(secs => t.seconds::double precision) < :now as over
    from enrolments as e
    inner join campaign_versions as v on e.campaign_id = v.campaign_id and e.version = v.version
    inner join jsonb_to_recordset(:timelines) as t (campaign_id text, seconds numeric) on e.campaign_id = t.campaign_id
    where e.exited_at is null and e.campaign_id = any(cast(:campaigns as text []))
),

-- materialized: written out into each place that asks for it, the plan is eight times as large
facts as materialized (
    select
        u.enrolment_id,
        coalesce(
            x.fact,
            case
                when jsonb_exists_any(u.exit_on, array['left_segment', 'clicked', 'rated_low', 'over', 'rated', 'delivered', 'superseded'])
                    then passage_fact(u.definition, u.enrolment_id, :now)
            end
        ) as fact,
        r.reason as unreachable,
        u.definition ->> 'goal' as goal,
        u.over,
        -- a step that waits for an event has no message yet
        coalesce(m.planned, 0) as planned,
        jsonb_array_length(u.definition -> 'steps') as steps,
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
    where e.enrolment_id = n.enrolment_id and n.exit_reason is not null and e.exited_at is null
    returning e.enrolment_id, n.exit_reason, n.reason
),

cancelled as (
    update messages as m
    set state = 'cancelled', reason = coalesce(d.reason, 'enrolment_ended'), finalized_at = :now
    from ended as d
    where m.enrolment_id = d.enrolment_id and m.state in ('scheduled', 'held')
    returning m.message_id
),

laid_to_rest as (
    update ghost_messages as g
    set state = 'cancelled', reason = coalesce(d.reason, 'enrolment_ended'), finalized_at = :now
    from ended as d
    where g.enrolment_id = d.enrolment_id and g.state = 'scheduled'
    returning g.message_id
)

select
    (select count(*) from ended) as ended,
    (select count(*) from ended as d where d.exit_reason = 'goal_met') as goal_met,
    (select count(*) from cancelled) as cancelled
