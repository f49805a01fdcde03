-- happen_replenishment_due: five days before an article of consumption is used up, as far as its median gap tells: the customer's own
-- with three purchases, else the article's.
--
-- reads   orders, order_lines, products, product_gaps, sources
-- writes  external_events
-- params  now timestamptz, reach interval, categories text[]
-- re-run  safe: named by the last purchase
insert into external_events (source_id, event_key, customer_id, kind, at, known_at, order_id, detail, worked_out)
with bought as (
    select distinct
        o.customer_id,
        o.source_id,
        p.sku,
        o.order_id,
        o.counted_at
    from products as p
    inner join order_lines as l on upper(l.sku) = upper(p.sku) and l.counted
    inner join orders as o on l.order_id = o.order_id and o.source_id = p.source_id
    where
        p.category = any(cast(:categories as text []))
        and o.counted_at < :now
        and o.counted_at > cast(:now as timestamptz) - interval '730 days'
        and (o.cancelled_at is null or o.cancelled_at > :now)
        and not o.gift
),

people as (
    select
        b.source_id,
        b.customer_id,
        b.sku,
        max(b.counted_at) as last_at,
        array_agg(b.counted_at) as times
    from bought as b
    group by b.customer_id, b.source_id, b.sku
),

known as (
    select
        q.*,
        -- hardly anybody bought the same three times: only then the gaps are looked at
        case
            when cardinality(q.times) >= 3 then (
                select percentile_cont(0.5) within group (order by g.gap)
                from (
                    select extract(epoch from t.at - lag(t.at) over (order by t.at)) / 86400 as gap
                    from unnest(q.times) as t (at)
                ) as g
            )
        end as own_gap
    from people as q
),

timed as (
    select
        k.*,
        coalesce(k.own_gap, cast(a.gap_days as double precision)) as gap,
        k.last_at + make_interval(secs => 86400 * (coalesce(k.own_gap, cast(a.gap_days as double precision)) - 5)) as at
    from known as k
    left join product_gaps as a on k.source_id = a.source_id and a.sku = upper(k.sku)
),

due as (
    select
        t.*,
        o.order_id,
        o.source_order_id
    from timed as t
    cross join lateral (
        select
            n.order_id,
            n.source_order_id
        from orders as n
        inner join order_lines as l on n.order_id = l.order_id and l.counted
        where
            n.customer_id = t.customer_id and n.counted_at = t.last_at and n.source_id = t.source_id and upper(l.sku) = upper(t.sku)
            and (n.cancelled_at is null or n.cancelled_at > :now) and not n.gift
        order by n.order_id desc
        limit 1
    ) as o
    where t.gap >= 10 and t.at <= :now and t.at > cast(:now as timestamptz) - cast(:reach as interval)
)

select
    d.source_id,
    'postlude:replenishment_due:' || d.sku || ':' || d.customer_id || ':' || d.source_order_id,
    d.customer_id,
    'replenishment_due',
    d.at,
    :now,
    d.order_id,
    jsonb_build_object(
        'sku', p.sku, 'name', p.name, 'url', p.url, 'image_url', p.image_url, 'category', coalesce(p.category, ''), 'price', p.price,
        'currency', s.currency, 'gap_days', round(cast(d.gap as numeric)),
        'gap_of', case when d.own_gap is null then 'product' else 'own' end,
        'last_bought_on', cast(d.last_at at time zone s.time_zone as date),
        'expected_on', cast((d.at + interval '5 days') at time zone s.time_zone as date)
    ),
    true
from due as d
inner join products as p on d.source_id = p.source_id and d.sku = p.sku
inner join sources as s on d.source_id = s.source_id
where p.in_stock is not false
on conflict do nothing
