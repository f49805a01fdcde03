-- why_now: what holds for this customer and campaign at this instant, one row.
--
-- reads   customers, sources, segment_memberships, orders, returns, tickets, messages
-- params  customer bigint, campaign text, channel text, kind text, topic text, stop_while jsonb, segment text, holdout numeric,
--         salt text, cap_days int, zone text, opens time, closes time, weekdays int[], blackouts date[], now timestamptz
-- re-run  safe: only reads
select
    unreachable(:customer, :channel, :kind, :topic, :now) as unreachable,
    stop_fact(:stop_while, :customer, :now) as stop,
    in_holdout(:campaign, :customer, cast(:holdout as numeric), :salt) as holdout,
    (
        select max(m.entered_at) from segment_memberships as m
        where m.segment_id = :segment and m.customer_id = :customer and m.left_at is null
    ) as member_since,
    (
        select count(*) from messages as m
        where
            m.customer_id = :customer and m.kind = 'marketing' and m.state in ('sent', 'unknown')
            and m.handed_over_at > cast(:now as timestamptz) - make_interval(days => :cap_days) and m.handed_over_at <= :now
    ) as recent,
    next_opening(:now, :zone, :opens, :closes, :weekdays, :blackouts) as opening
