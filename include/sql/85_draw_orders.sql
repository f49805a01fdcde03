-- draw_orders: on the copy of a simulation: future orders of each customer, by their own gaps and after their own orders; hashes are the dice.
--
-- reads   orders
-- writes  future_orders
-- params  first timestamptz, until timestamptz, seed text
-- re-run  into an empty table
insert into future_orders (customer_id, nth, placed_at, like_order)
with recursive counted as (
    select
        o.customer_id,
        o.source_id,
        o.order_id,
        o.counted_at,
        o.counted_at - lag(o.counted_at) over (partition by o.customer_id order by o.counted_at, o.order_id) as gap
    from orders as o
    where
        o.counted_at < :first and o.customer_id is not null and o.marketplace is null
        and (o.cancelled_at is null or o.cancelled_at > :first)
),

own as (
    select
        c.customer_id,
        c.source_id,
        max(c.counted_at) as last_at,
        array_agg(c.order_id order by c.order_id) as orders,
        coalesce(array_agg(c.gap order by c.gap) filter (where c.gap > interval '0'), '{}') as gaps
    from counted as c
    group by c.customer_id, c.source_id
),

-- of the shop: a hundred gaps that stand for all of them, and how many come back at all
shops as (
    select
        o.source_id,
        avg(case when cardinality(o.orders) > 1 then 1.0 else 0.0 end) as back,
        (
            select percentile_disc(array(select q / 100.0::double precision from generate_series(1, 99) as q)) within group (order by c.gap)
            from counted as c
            where c.source_id = o.source_id and c.gap > interval '0'
        ) as gaps
    from own as o
    group by o.source_id
),

customers_in_play as (
    select
        o.customer_id,
        o.orders,
        o.last_at,
        case when cardinality(o.gaps) >= 2 then o.gaps else s.gaps end as gaps
    from own as o
    inner join shops as s on o.source_id = s.source_id
    where
        case
            when cardinality(o.gaps) >= 2 then :first - o.last_at <= 3 * o.gaps[cardinality(o.gaps)]
            else dice(:seed, o.customer_id, 0, 'back') < s.back
        end
),

drawn as (
    select
        p.customer_id,
        1 as nth,
        p.orders,
        p.gaps,
        -- one of the gaps that are not over yet; who is overdue comes any time within half a usual gap
        case
            when n.open > 0
                then p.last_at + p.gaps[cardinality(p.gaps) - n.open + 1 + floor(n.open * dice(:seed, p.customer_id, 1, 'gap'))::int]
            else :first + dice(:seed, p.customer_id, 1, 'late') * p.gaps[(cardinality(p.gaps) + 1) / 2]
        end as placed_at
    from customers_in_play as p
    cross join lateral (select count(*)::int as open from unnest(p.gaps) as g where p.last_at + g > :first) as n
    where cardinality(p.gaps) > 0
    union all
    select
        d.customer_id,
        d.nth + 1,
        d.orders,
        d.gaps,
        d.placed_at + d.gaps[1 + floor(cardinality(d.gaps) * dice(:seed, d.customer_id, d.nth + 1, 'gap'))::int]
    from drawn as d
    where d.placed_at < :until and d.nth < 500
)

select
    d.customer_id,
    d.nth,
    d.placed_at,
    d.orders[1 + floor(cardinality(d.orders) * dice(:seed, d.customer_id, d.nth, 'like'))::int]
from drawn as d
where d.placed_at >= :first and d.placed_at < :until
