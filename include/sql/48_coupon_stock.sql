-- coupon_stock: every pool with what is left of it. `left` is what can still be given: stock for imported codes, budget for both;
-- empty: no limit.
--
-- reads   coupon_pools, coupons, messages
-- params  now timestamptz
-- re-run  safe: only reads
with pools as (
    select
        p.pool,
        p.kind,
        p.low_at,
        n.free,
        n.reserved,
        n.bound,
        n.released,
        n.void,
        coupon_room(p.pool, :now) as budget,
        case
            when p.kind = 'imported' then least(n.free, coupon_room(p.pool, :now))
            else coupon_room(p.pool, :now)
        end as "left",
        (
            select count(*)
            from messages as m
            inner join enrolments as e on m.enrolment_id = e.enrolment_id
            inner join campaign_versions as v on e.campaign_id = v.campaign_id and e.version = v.version
            where
                m.state = 'held' and m.reason = 'coupon_exhausted'
                and exists (
                    select 1 from jsonb_array_elements(v.definition -> 'steps') as s
                    where s ->> 'id' = m.step_id and s -> 'coupon' ->> 'pool' = p.pool
                )
        ) as waiting
    from coupon_pools as p
    cross join lateral (
        select
            count(*) filter (where k.state = 'free' and (k.valid_until is null or k.valid_until >= :now)) as free,
            count(*) filter (where k.state = 'reserved') as reserved,
            count(*) filter (where k.state = 'bound') as bound,
            count(*) filter (where k.state = 'released') as released,
            count(*) filter (where k.state = 'void') as void
        from coupons as k where k.pool = p.pool
    ) as n
)

select
    p.*,
    coalesce(p."left"::text, 'no limit') as told_left,
    p.waiting > 0 or coalesce(p."left" < p.low_at, false) as low
from pools as p
order by p.pool
