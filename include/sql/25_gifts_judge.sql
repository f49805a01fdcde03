-- gifts_judge: everybody who could be drawn, and the first thing that stands against it; none means: may be drawn.
--
-- reads   customer_facts, customers, gift_draws, coupons, messages, recoveries, returns, tickets, ratings, suppressions, consents
-- writes  gift_candidates (temporary)
-- params  now timestamptz, people bigint[], pause interval, not_discounted interval, stops jsonb
-- re-run  safe: lives for one transaction
create temporary table gift_candidates on commit drop as
select
    f.customer_id,
    f.source_id,
    case
        when f.stage = 'lapsed' then 'lapsed'
        when exists (
            select 1 from gift_draws as g
            where
                g.customer_id = f.customer_id
                and (cast(:people as bigint []) is null or g.state <> 'drawn')
                and g.state <> 'withdrawn'
                and g.at > cast(:now as timestamptz) - cast(:pause as interval)
        ) then 'drawn_recently'
        when exists (
            select 1 from messages as m
            where
                m.customer_id = f.customer_id
                and m.coupon_code is not null
                and m.state in ('sent', 'unknown')
                and m.handed_over_at > cast(:now as timestamptz) - cast(:not_discounted as interval)
        ) then 'discounted'
        when stop_fact(:stops, f.customer_id, :now) is not null then stop_fact(:stops, f.customer_id, :now)
        when exists (
            select 1 from ratings as r
            where
                r.customer_id = f.customer_id
                and r.at > cast(:now as timestamptz) - interval '90 days'
                and r.at <= :now
                and rating_group(r.score, r.scale) = 'detractor'
        ) then 'rated_low'
        else u.reason
    end as reason
from customer_facts as f
left join reachability_on(array['email'], 'marketing', 'marketing', :now) as u on f.customer_id = u.customer_id
where cast(:people as bigint []) is null or f.customer_id = any(cast(:people as bigint []))
