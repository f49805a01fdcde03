-- happen_community_ready: a second order, or a good word: worth an invitation to the others.
--
-- reads   orders, customer_facts, ratings, customers
-- writes  external_events
-- params  now timestamptz, reach interval
-- re-run  safe: once for a customer
insert into external_events (source_id, event_key, customer_id, kind, at, known_at, order_id, detail, worked_out)
with found as (
    select
        o.customer_id,
        o.order_id,
        o.counted_at as at,
        'second_order' as why
    from orders as o
    inner join customer_facts as f on o.customer_id = f.customer_id and f.frequency >= 2
    where
        o.counted_at < :now
        and o.counted_at > cast(:now as timestamptz) - cast(:reach as interval)
        and (o.cancelled_at is null or o.cancelled_at > :now)
        and (
            select count(*) from orders as b
            where b.customer_id = o.customer_id and b.counted_at < o.counted_at and (b.cancelled_at is null or b.cancelled_at > :now)
        ) = 1
    union all
    select
        r.customer_id,
        r.order_id,
        r.at,
        'good_score'
    from ratings as r
    where
        r.score >= case r.scale when 5 then 4 else 9 end
        and r.about <> 'delivery'
        and r.at <= :now
        and r.known_at <= :now
        and r.at > cast(:now as timestamptz) - cast(:reach as interval)
)

select distinct on (f.customer_id)
    c.source_id,
    'postlude:community_ready:' || f.customer_id,
    f.customer_id,
    'community_ready',
    f.at,
    :now,
    f.order_id,
    jsonb_build_object('why', f.why),
    true
from found as f
inner join customers as c on f.customer_id = c.customer_id
order by f.customer_id, f.at
on conflict do nothing
