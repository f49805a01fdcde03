-- judge_candidates: the first reason against each candidate not yet enrolled; no reason means: enrol.
--
-- reads   candidates, enrolments, sources, segment_memberships, customers, consents, suppressions, orders, returns, reviews
-- writes  judged (temporary)
-- params  campaign text, channel text, kind text, topic text, exit_on jsonb, exclude text[], activated_at timestamptz,
--         stale_sources text[], now timestamptz
-- re-run  safe: lives for one transaction
create temporary table judged on commit drop as
select
    c.customer_id,
    c.order_id,
    c.anchor_key,
    c.anchor_at,
    c.watch_from,
    coalesce(
        unreachable(c.customer_id, :channel, :kind, :topic, :now),
        case when c.anchor_at < :activated_at then 'before_activation' end,
        exit_fact(:exit_on, c.customer_id, c.order_id, c.watch_from, :now),
        case
            when exists (
                select 1 from segment_memberships as m
                where m.customer_id = c.customer_id and m.left_at is null and m.segment_id = any(cast(:exclude as text []))
            ) then 'excluded_segment'
        end,
        case when c.source_id = any(cast(:stale_sources as text [])) then 'feed_stale' end
    ) as reason
from candidates as c
where not exists (
    select 1 from enrolments as e
    where e.campaign_id = :campaign and e.customer_id = c.customer_id and e.anchor_key = c.anchor_key
)
