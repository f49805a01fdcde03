-- recommend_rank: the best others for each article affected. Cosine of the weighted co-purchases, shrunk by n / (n + shrink) where few
-- orders speak for it. Articles of two known categories complement each other; all others are similar.
--
-- reads   co_purchases, product_orders, products, articles_affected
-- writes  recommendations
-- params  shrink double precision, most int
-- re-run  safe: written anew from the counts
insert into recommendations (source_id, sku, kind, place, other, score, orders)
with shelf as (
    select distinct on (p.source_id, upper(p.sku))
        p.source_id,
        upper(p.sku) as sku,
        nullif(p.category, '') as category
    from products as p
    order by p.source_id, upper(p.sku), p.updated_at desc nulls last, p.sku
),

pairs as (
    select
        c.source_id,
        c.sku,
        c.other,
        c.orders,
        c.weight
    from co_purchases as c
    union all
    select
        c.source_id,
        c.other,
        c.sku,
        c.orders,
        c.weight
    from co_purchases as c
),

scored as (
    select
        p.source_id,
        p.sku,
        p.other,
        p.orders,
        case when mine.category <> theirs.category then 'complementary' else 'similar' end as kind,
        p.weight / (sqrt(cast(a.weight as double precision)) * sqrt(cast(b.weight as double precision)))
        * p.orders / (p.orders + cast(:shrink as double precision)) as score
    from articles_affected as q
    inner join pairs as p on q.source_id = p.source_id and q.sku = p.sku
    inner join product_orders as a on p.source_id = a.source_id and p.sku = a.sku
    inner join product_orders as b on p.source_id = b.source_id and p.other = b.sku
    left join shelf as mine on p.source_id = mine.source_id and p.sku = mine.sku
    -- what is not in the catalogue cannot be shown
    inner join shelf as theirs on p.source_id = theirs.source_id and p.other = theirs.sku
),

ranked as (
    select
        s.*,
        row_number() over (partition by s.source_id, s.sku, s.kind order by s.score desc, s.orders desc, s.other) as place
    from scored as s
)

select
    r.source_id,
    r.sku,
    r.kind,
    r.place,
    r.other,
    r.score,
    r.orders
from ranked as r
where r.place <= :most
