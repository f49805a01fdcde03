-- candidates_of_return: the state each return has reached, where it reached it within the campaign's reach. A state that a later one has
-- overtaken meanwhile is no news.
-- customer: this one only; null: everybody.
--
-- reads   returns, orders
-- writes  candidates (temporary)
-- params  now timestamptz, max_age interval, customer bigint
-- re-run  safe: lives for one transaction
create temporary table candidates on commit drop as
with reached as (
    select distinct on (r.order_id, r.return_key)
        r.order_id,
        r.return_key,
        s.state,
        s.at
    from returns as r
    cross join lateral (
        values (1, 'requested', r.requested_at), (2, 'received', r.received_at), (3, 'refunded', r.refunded_at), (4, 'exchanged', r.exchanged_at)
    ) as s (place, state, at)
    where
        -- a return goes on for weeks; older ones are over
        r.requested_at > cast(:now as timestamptz) - cast(:max_age as interval) - interval '120 days'
        and s.at <= :now
        and (cast(:customer as bigint) is null or r.order_id in (select o.order_id from orders as o where o.customer_id = cast(:customer as bigint)))
    order by r.order_id, r.return_key, s.at desc, s.place desc
)

select
    o.customer_id,
    o.order_id,
    'return:' || o.source_id || ':' || o.source_order_id || ':' || x.return_key || ':' || x.state as anchor_key,
    x.at as anchor_at,
    x.at as watch_from,
    o.source_id,
    case when o.marketplace is not null then 'marketplace' end as objection
from reached as x
inner join orders as o on x.order_id = o.order_id
where o.customer_id is not null and x.at > cast(:now as timestamptz) - cast(:max_age as interval)
