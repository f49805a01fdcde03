-- why_now: what holds for this customer at this instant, one row for each campaign that is asked about. Of the past it says what was
-- known then: a withdrawal, a complaint or a bounce counts from when we heard of it.
--
-- reads   customers, sources, consents, consent_terms, consent_notices, suppressions, events, segment_memberships, orders, returns, tickets, messages, holdouts
-- params  customer bigint, zone text, campaigns jsonb, now timestamptz
-- re-run  safe: only reads
select
    k.campaign,
    (
        -- as reachability_on has it: null when one channel reaches them, else the reason of the first
        select u.reason
        from customers as c
        cross join unnest(k.channels) with ordinality as o (channel, place)
        cross join lateral (
            select
                case
                    when c.marketplace then 'marketplace'
                    when o.channel = 'email' and (c.address is null or c.address !~ '^[^@\s]+@[^@\s]+$') then 'no_address'
                    when o.channel = 'sms' and c.phone is null then 'no_address'
                    else coalesce(
                        (
                            select s.reason
                            from suppressions as s
                            left join events as t on s.event_id = t.event_id
                            where
                                s.address = any(array[c.address, c.phone])
                                and suppresses(s.address, s.reason, o.channel, c.address, c.phone)
                                and (s.scope = 'all' or k.kind = 'marketing')
                                and coalesce(t.known_at, s.since) <= :now
                                and (s.lifted_at is null or s.lifted_at > :now)
                            order by s.since
                            limit 1
                        ),
                        case
                            when k.kind = 'marketing' and not coalesce((
                                select g.granted
                                from consents as g
                                where
                                    g.customer_id = c.customer_id
                                    and g.channel = o.channel
                                    and g.topic = k.topic
                                    and g.at <= :now
                                    and (g.granted or g.known_at <= :now)
                                order by g.at desc, g.granted
                                limit 1
                            ), false) then 'no_consent'
                            when k.kind = 'marketing' then consent_ended(c.customer_id, c.country, o.channel, k.topic, :now)
                        end
                    )
                end as reason
        ) as u
        where c.customer_id = :customer
        order by u.reason is not null, o.place
        limit 1
    ) as unreachable,
    stop_fact(k.stop_while, cast(:customer as bigint), :now) as stop,
    (
        -- as drawn when they were first enrolled; nobody drawn yet: as it would be drawn now
        select d.campaign_id
        from jsonb_to_recordset(k.draws) as d (campaign_id text, share numeric, salt text)
        left join holdouts as h on d.campaign_id = h.campaign_id and h.customer_id = :customer
        where coalesce(h.held, in_holdout(d.campaign_id, :customer, d.share, d.salt))
        order by d.campaign_id
        limit 1
    ) as holdout,
    (
        select max(m.entered_at) from segment_memberships as m
        where
            m.segment_id = k.segment
            and m.customer_id = :customer
            and m.seen_at <= :now
            and (m.left_at is null or m.left_at > :now)
    ) as member_since,
    next_opening(:now, cast(:zone as text), k.opens, k.closes, k.weekdays, k.blackouts) as opening,
    o.reason as pressed,
    o.free_at,
    o.winner
from jsonb_to_recordset(:campaigns) as k (
    campaign text, channel text, channels text [], kind text, topic text, stop_while jsonb, segment text, draws jsonb, rules jsonb,
    reach interval, every text, opens time, closes time, weekdays int [], blackouts date []
)
cross join lateral recent_messages(:customer, cast(:now as timestamptz) - k.reach, :now) as r
cross join lateral share_out(
    jsonb_build_array(
        jsonb_build_object(
            'campaign', k.campaign, 'channel', k.channel, 'kind', k.kind,
            'topic', k.topic, 'every', k.every
        )
    ),
    r.recent,
    k.rules,
    cast(:zone as text),
    :now
) as o
