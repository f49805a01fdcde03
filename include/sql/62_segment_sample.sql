-- segment_sample: up to twenty present members, spread over all of them; the same ones until the segment changes.
--
-- reads   segment_memberships, customer_features
-- params  segment text
-- re-run  safe: only reads
with ends as (
    select min(m.customer_id) as low, max(m.customer_id) as high
    from segment_memberships as m
    where m.segment_id = :segment and m.left_at is null
),

found as (
    select distinct near.customer_id
    from ends as e
    cross join generate_series(0, 19) as n (step)
    cross join lateral (
        select m.customer_id from segment_memberships as m
        where m.segment_id = :segment and m.left_at is null and m.customer_id >= e.low + (e.high - e.low) * n.step / 19
        order by m.customer_id
        limit 1
    ) as near
)

select
    m.customer_id as customer,
    m.entered_at as in_since,
    f.stage,
    f.frequency as orders,
    f.monetary as spent,
    f.last_order_at as last_order,
    f.recency_days
from found as u
inner join segment_memberships as m on u.customer_id = m.customer_id
left join customer_features as f on u.customer_id = f.customer_id
where m.segment_id = :segment and m.left_at is null
order by m.customer_id
