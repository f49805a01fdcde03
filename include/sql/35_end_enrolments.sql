-- end_enrolments: what ended a passage is noted once, and what it still had planned is cancelled.
--
-- reads   campaign_versions, customers, consents, suppressions, orders, returns, reviews, events
-- writes  enrolments: exited; messages: scheduled, held -> cancelled
-- params  campaigns text[], now timestamptz, timelines jsonb
-- re-run  safe: an ended enrolment stays ended
with facts as (
    select
        e.enrolment_id,
        e.arm,
        coalesce(
            exit_fact(v.definition -> 'exit_on', e.customer_id, e.order_id, e.watch_from, :now),
            case
                when jsonb_exists_any(v.definition -> 'exit_on', array['left_segment', 'clicked', 'rated_low'])
                    then passage_fact(v.definition, e.enrolment_id, :now)
            end
        ) as fact,
        unreachable_on(
            e.customer_id, channels_of(v.definition), v.definition ->> 'kind', v.definition ->> 'topic', :now
        ) as unreachable,
        v.definition ->> 'goal' as goal,
        e.anchor_at + make_interval(secs => t.seconds::double precision) < :now as over,
        -- a step that waits for an event has no message yet
        (select count(*) from messages as m where m.enrolment_id = e.enrolment_id) as planned,
        jsonb_array_length(v.definition -> 'steps') as steps,
        exists (
            select 1 from messages as m
            where m.enrolment_id = e.enrolment_id and m.state in ('scheduled', 'held', 'sending', 'unknown')
        ) as open_messages,
        exists (select 1 from messages as m where m.enrolment_id = e.enrolment_id and m.state = 'sent') as told
    from enrolments as e
    inner join campaign_versions as v on e.campaign_id = v.campaign_id and e.version = v.version
    inner join jsonb_to_recordset(:timelines) as t (campaign_id text, seconds numeric) on e.campaign_id = t.campaign_id
    where e.exited_at is null and e.campaign_id = any(cast(:campaigns as text []))
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
            when f.planned = 0 and f.arm = 'treated' then null
            when (f.planned >= f.steps or f.over) and f.arm = 'treated' and not f.open_messages and f.told then 'completed'
            when (f.planned >= f.steps or f.over) and f.arm = 'treated' and not f.open_messages then 'expired'
            when f.over and f.arm = 'holdout' then 'completed'
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
)

select
    (select count(*) from ended) as ended,
    (select count(*) from ended as d where d.exit_reason = 'goal_met') as goal_met,
    (select count(*) from cancelled) as cancelled
