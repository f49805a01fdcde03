-- claim: the last look. Every rule is read again for the locked messages; what passes becomes `sending` for this worker,
-- what does not gets its reason. Stale feeds, closed windows and caps only put off, until the message expires.
--
-- reads   enrolments, campaign_versions, customers, sources, time_zones, consents, suppressions, orders, returns, reviews, tickets,
--         coupons
-- writes  messages: scheduled -> sending, expired, cancelled, skipped, held (no coupon left), or later; attempts
-- params  ids uuid[], worker text, now timestamptz, windows jsonb, blackouts date[], stale_sources text[], cap int, cap_days int
-- re-run  safe: only rows still scheduled are touched
with due as (
    select
        m.message_id,
        m.campaign_id,
        m.step_id,
        m.customer_id,
        m.kind,
        m.send_at,
        m.expires_at,
        m.channel,
        e.order_id,
        e.watch_from,
        e.exited_at,
        v.definition,
        coalesce(z.zone, s.time_zone) as zone,
        w.opens,
        w.closes,
        w.weekdays,
        coalesce((v.definition ->> 'rests_on_absence')::boolean, true)
        and s.source_id = any(cast(:stale_sources as text [])) as stale
    from messages as m
    inner join enrolments as e on m.enrolment_id = e.enrolment_id
    inner join campaign_versions as v on e.campaign_id = v.campaign_id and e.version = v.version
    inner join customers as c on m.customer_id = c.customer_id
    inner join sources as s on c.source_id = s.source_id
    inner join jsonb_to_recordset(:windows) as w (campaign_id text, opens time, closes time, weekdays int [])
        on m.campaign_id = w.campaign_id
    left join time_zones as z on c.time_zone = z.zone
    where m.message_id = any(cast(:ids as uuid [])) and m.state = 'scheduled'
),

facts as (
    select
        d.*,
        exit_fact(d.definition -> 'exit_on', d.customer_id, d.order_id, d.watch_from, :now) as fact,
        unreachable(d.customer_id, d.channel, d.kind, d.definition ->> 'topic', :now) as unreachable,
        stop_fact(d.definition -> 'stop_while', d.customer_id, :now) as stop,
        case
            when d.kind = 'marketing' then next_opening(:now, d.zone, d.opens, d.closes, d.weekdays, :blackouts)
            else cast(:now as timestamptz)
        end as opening
    from due as d
),

judged as (
    select
        f.*,
        case
            when f.expires_at <= :now and f.stale then 'feed_stale'
            when f.expires_at <= :now then 'too_late'
            when f.exited_at is not null then 'enrolment_ended'
            when f.fact is not null then f.fact
            when f.unreachable is not null then f.unreachable
            when f.stop is not null then f.stop
            when f.stale then 'feed_stale'
            when f.opening is null or f.opening > :now then 'outside_window'
        end as reason,
        case
            when f.expires_at <= :now then 'expired'
            when f.exited_at is not null or f.fact is not null then 'cancelled'
            when f.unreachable is not null or f.stop is not null then 'skipped'
            else 'scheduled'
        end as refused_to
    from facts as f
),

ranked as (
    select
        j.*,
        row_number() over (partition by j.customer_id, j.reason is null, j.kind order by j.send_at, j.message_id) as turn,
        row_number() over (partition by j.customer_id, j.reason is null, j.campaign_id order by j.send_at, j.message_id) as own_turn
    from judged as j
),

verdicts as (
    select
        r.message_id,
        r.expires_at,
        r.zone,
        r.opens,
        r.closes,
        r.weekdays,
        r.opening,
        r.refused_to,
        case
            when r.reason is not null then r.reason
            when r.definition ->> 'at_most_every_seconds' is not null and (
                r.own_turn > 1
                or exists (
                    select 1
                    from messages as x
                    where
                        x.customer_id = r.customer_id
                        and x.campaign_id = r.campaign_id
                        and x.message_id <> r.message_id
                        and (
                            x.state = 'sending'
                            or (
                                x.state in ('sent', 'unknown')
                                and x.handed_over_at > cast(:now as timestamptz)
                                - make_interval(secs => cast(r.definition ->> 'at_most_every_seconds' as double precision))
                            )
                        )
                )
            ) then 'asked_recently'
            when r.kind = 'marketing' and r.turn - 1 + (
                select count(*)
                from messages as x
                where
                    x.customer_id = r.customer_id
                    and x.kind = 'marketing'
                    and x.message_id <> r.message_id
                    and (
                        x.state = 'sending'
                        or (
                            x.state in ('sent', 'unknown')
                            and x.handed_over_at > cast(:now as timestamptz) - make_interval(days => :cap_days)
                        )
                    )
            ) >= :cap then 'capped'
            when coupon_lacking(r.message_id, r.definition, r.step_id) then 'coupon_exhausted'
        end as reason
    from ranked as r
),

decided as (
    select
        v.message_id,
        v.reason,
        v.expires_at,
        case
            when v.reason is null then 'sending'
            when v.reason = 'asked_recently' then 'skipped'
            when v.reason = 'capped' then 'scheduled'
            when v.reason = 'coupon_exhausted' then 'held'
            else v.refused_to
        end as state,
        case v.reason
            when 'outside_window' then coalesce(v.opening, v.expires_at)
            when 'capped' then
                coalesce(
                    next_opening(
                        cast(:now as timestamptz) + interval '24 hours', v.zone, v.opens, v.closes, v.weekdays, :blackouts
                    ),
                    v.expires_at
                )
            when 'feed_stale' then cast(:now as timestamptz) + interval '1 hour'
        end as later
    from verdicts as v
),

claimed as (
    update messages as m
    set
        state = d.state,
        reason = d.reason,
        attempt = m.attempt + case when d.state = 'sending' then 1 else 0 end,
        claimed_by = case when d.state = 'sending' then :worker else m.claimed_by end,
        claimed_at = case when d.state = 'sending' then cast(:now as timestamptz) else m.claimed_at end,
        handed_over_at = case when d.state = 'sending' then null else m.handed_over_at end,
        finalized_at = case when d.state in ('expired', 'cancelled', 'skipped') then cast(:now as timestamptz) end,
        -- put off, yet never past its life: at that moment it is looked at once more and expires with this reason
        send_at = case when d.state = 'scheduled' then least(d.later, d.expires_at) else m.send_at end
    from decided as d
    where m.message_id = d.message_id
    returning m.message_id, m.state, m.reason, m.attempt, m.max_attempts
),

started as (
    insert into attempts (message_id, attempt, worker, claimed_at)
    select c.message_id, c.attempt, :worker, :now
    from claimed as c
    where c.state = 'sending'
    returning message_id
)

select c.message_id, c.state, c.reason, c.attempt, c.max_attempts
from claimed as c
