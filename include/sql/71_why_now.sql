-- why_now: what holds for this customer and campaign at this instant, one row.
--
-- reads   customers, sources, segment_memberships, orders, returns, tickets, messages
-- params  customer bigint, campaign text, channel text, kind text, topic text, stop_while jsonb, segment text, holdout numeric,
--         salt text, rules jsonb, reach interval, zone text, opens time, closes time, weekdays int[], blackouts date[],
--         every text, now timestamptz
-- re-run  safe: only reads
select
    unreachable(:customer, :channel, :kind, :topic, :now) as unreachable,
    stop_fact(:stop_while, :customer, :now) as stop,
    in_holdout(:campaign, :customer, cast(:holdout as numeric), :salt) as holdout,
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
