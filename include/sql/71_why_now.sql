-- why_now: what holds for this customer and campaign at this instant, one row.
--
-- reads   customers, sources, segment_memberships, orders, returns, tickets, messages, holdouts
-- params  customer bigint, campaign text, channel text, channels text[], kind text, topic text, stop_while jsonb, segment text, draws jsonb,
--         rules jsonb, reach interval, zone text, opens time, closes time, weekdays int[], blackouts date[],
--         every text, now timestamptz
-- re-run  safe: only reads
select
    unreachable_on(:customer, :channels, :kind, :topic, :now) as unreachable,
    stop_fact(:stop_while, :customer, :now) as stop,
    (
        -- as drawn when they were first enrolled; nobody drawn yet: as it would be drawn now
        select d.campaign_id
        from jsonb_to_recordset(:draws) as d (campaign_id text, share numeric, salt text)
        left join holdouts as h on d.campaign_id = h.campaign_id and h.customer_id = :customer
        where coalesce(h.held, in_holdout(d.campaign_id, :customer, d.share, d.salt))
        order by d.campaign_id
        limit 1
    ) as holdout,
    (
        select max(m.entered_at) from segment_memberships as m
        where m.segment_id = :segment and m.customer_id = :customer and m.left_at is null
    ) as member_since,
    next_opening(:now, :zone, :opens, :closes, :weekdays, :blackouts) as opening,
    o.reason as pressed,
    o.free_at,
    o.winner
from recent_messages(:customer, cast(:now as timestamptz) - cast(:reach as interval), :now) as r
cross join lateral share_out(
    jsonb_build_array(
        jsonb_build_object(
            'campaign', cast(:campaign as text), 'channel', cast(:channel as text), 'kind', cast(:kind as text),
            'topic', cast(:topic as text), 'every', cast(:every as text)
        )
    ),
    r.recent,
    :rules,
    :zone,
    :now
) as o
