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
        o.source_id,
        o.customer_id,
        o.order_id,
        o.source_order_id,
        o.counted_at,
        p.sku
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

gaps as (
    select
        b.*,
        extract(epoch from b.counted_at - lag(b.counted_at) over w) / 86400 as gap,
        row_number() over (partition by b.customer_id, b.source_id, b.sku order by b.counted_at desc, b.order_id desc) as back
    from bought as b
    window w as (partition by b.customer_id, b.source_id, b.sku order by b.counted_at, b.order_id)
),

people as (
    select
        g.source_id,
        g.customer_id,
        g.sku,
        max(g.order_id) filter (where g.back = 1) as order_id,
        max(g.source_order_id) filter (where g.back = 1) as source_order_id,
        max(g.counted_at) as last_at,
        case when count(g.gap) >= 2 then percentile_cont(0.5) within group (order by g.gap) end as own_gap
    from gaps as g
    group by g.source_id, g.customer_id, g.sku
),

due as (
    select
        q.*,
        coalesce(q.own_gap, cast(a.gap_days as double precision)) as gap,
        q.last_at + make_interval(secs => 86400 * (coalesce(q.own_gap, cast(a.gap_days as double precision)) - 5)) as at
    from people as q
    left join product_gaps as a on q.source_id = a.source_id and a.sku = upper(q.sku)
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
where
    d.gap >= 10
    and d.at <= :now
    and d.at > cast(:now as timestamptz) - cast(:reach as interval)
    and p.in_stock is not false
on conflict do nothing
