-- judge_candidates: the first reason against each candidate not yet enrolled; no reason means: enrol.
-- One passage at a time for each customer, unless the campaign is about single orders.
--
-- reads   candidates, enrolments, sources, segment_memberships, customers, customer_features, consents, suppressions, orders,
--         order_lines, products, returns, reviews, tickets, coupons, external_events, time_zones
-- writes  judged (temporary)
-- params  campaign text, channels text[], kind text, topic text, exit_on jsonb, within text[], exclude text[], activated_at timestamptz,
--         stale_sources text[], reentry text, period interval, per_order boolean, only_if jsonb, definition jsonb, stop_while jsonb,
--         now timestamptz
-- re-run  safe: lives for one transaction
create temporary table judged on commit drop as
with looked_at as (
    select
        c.customer_id,
        c.order_id,
        c.anchor_key,
        c.anchor_at,
        c.watch_from,
        coalesce(
            u.reason,
            case when c.anchor_at < :activated_at then 'before_activation' end,
            c.objection,
            x.fact,
            case
                when cast(:within as text []) <> '{}' and not exists (
                    select 1 from segment_memberships as m
                    where m.customer_id = c.customer_id and m.left_at is null and m.segment_id = any(cast(:within as text []))
                ) then 'outside_audience'
            end,
            case
                when exists (
                    select 1 from segment_memberships as m
                    where m.customer_id = c.customer_id and m.left_at is null and m.segment_id = any(cast(:exclude as text []))
                ) then 'excluded_segment'
            end,
            -- an open return or ticket may be over in time; what went wrong must be put right first
            case when jsonb_exists(:stop_while, 'recovery_open') then stop_fact('["recovery_open"]', c.customer_id, :now) end,
            case when c.source_id = any(cast(:stale_sources as text [])) then 'feed_stale' end,
            case
                when not :per_order and exists (
                    select 1 from enrolments as e
                    where e.campaign_id = :campaign and e.customer_id = c.customer_id and e.exited_at is null
                ) then 'already_in_it'
            end,
            case
                when cast(:reentry as text) = 'never' and exists (
                    select 1 from enrolments as e where e.campaign_id = :campaign and e.customer_id = c.customer_id
                ) then 'reentry_never'
                -- days of the customer's calendar between the two beginnings, whatever the clock says on them
                when cast(:reentry as text) = 'after' and exists (
                    select 1
                    from enrolments as e
                    inner join customers as p on e.customer_id = p.customer_id
                    inner join sources as s on p.source_id = s.source_id
                    left join time_zones as z on p.time_zone = z.zone
                    where
                        e.campaign_id = :campaign
                        and e.customer_id = c.customer_id
                        and cast(e.anchor_at at time zone coalesce(z.zone, s.time_zone) as date) + cast(:period as interval)
                        > cast(c.anchor_at at time zone coalesce(z.zone, s.time_zone) as date)
                ) then 'reentry_too_soon'
            end,
            case
                when cast(:only_if as jsonb) is not null and condition_holds(
                    :only_if, known_values(:definition, null, c.customer_id, c.order_id, c.anchor_key, c.anchor_at, :now), null,
                    c.customer_id, c.order_id, c.watch_from, :now
                ) is not true then 'not_for_them'
            end
        ) as reason
    from candidates as c
    left join reachability_on(cast(:channels as text []), :kind, :topic, :now) as u on c.customer_id = u.customer_id
    left join lateral exit_facts(:exit_on, c.customer_id, c.order_id, c.watch_from, :now) as x on true
    where not exists (
        select 1 from enrolments as e
        where e.campaign_id = :campaign and e.customer_id = c.customer_id and e.anchor_key = c.anchor_key
        offset 0 -- for each by its key: of a young campaign the planner knows no passages, and would read all of them for each
    )
),

ranked as (
    select
        l.*,
        row_number() over (partition by l.customer_id, l.reason is null order by l.anchor_at, l.anchor_key) as turn
    from looked_at as l
)

select
    r.customer_id,
    r.order_id,
    r.anchor_key,
    r.anchor_at,
    r.watch_from,
    case
        when r.reason is null and r.turn > 1 and not :per_order then 'already_in_it'
        when r.reason is null and r.turn > 1 and cast(:reentry as text) = 'never' then 'reentry_never'
        when r.reason is null and r.turn > 1 and cast(:reentry as text) = 'after' then 'reentry_too_soon'
        else r.reason
    end as reason
from ranked as r
