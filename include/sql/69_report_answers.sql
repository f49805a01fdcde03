-- report_answers: what customers answered in the last year, by product, category, campaign and month; an answer that was changed counts
-- as it stands; what was asked about the delivery counts by itself. Cells of fewer answers than `least` are told only as a number of cells: few people could be recognised, and it is chance.
--
-- reads   ratings, orders, order_lines, products
-- params  now timestamptz, least int
-- re-run  safe: reads only
with newest as (
    select distinct on (r.customer_id, r.order_id, r.campaign_id, r.sku, r.about)
        r.*
    from ratings as r
    where r.at <= :now and r.at > cast(:now as timestamptz) - interval '365 days'
    order by r.customer_id, r.order_id, r.campaign_id, r.sku, r.about, r.at desc, r.score
),

answers as (
    select
        n.scale,
        n.about = 'delivery' as delivery,
        n.campaign_id,
        to_char(n.at, 'YYYY-MM') as month,
        coalesce(p.name, i.name) as product,
        coalesce(p.category, i.category) as category,
        n.score >= 4 as good,
        rating_group(n.score, n.scale) as kind
    from newest as n
    left join orders as o on n.order_id = o.order_id
    left join products as p on o.source_id = p.source_id and n.sku = p.sku
    left join lateral (
        -- an answer that names no article is about the main item of the order
        select
            coalesce(q.name, l.description) as name,
            q.category
        from order_lines as l
        left join products as q on l.sku = q.sku and o.source_id = q.source_id
        where l.order_id = n.order_id and l.counted
        order by l.quantity * l.unit_price desc, l.line_key
        limit 1
    ) as i on true
),

cells as (
    select
        a.scale,
        a.delivery,
        c.dimension,
        c.name,
        count(*) as answers,
        count(*) filter (where a.good) as good,
        count(*) filter (where a.kind = 'promoter') as promoters,
        count(*) filter (where a.kind = 'detractor') as detractors
    from answers as a
    cross join lateral (
        values ('all', 'all'), ('month', a.month), ('category', a.category), ('campaign', a.campaign_id), ('product', a.product)
    ) as c (dimension, name)
    where c.name is not null
    group by a.scale, a.delivery, c.dimension, c.name
)

select
    c.scale,
    c.delivery,
    c.dimension,
    case when c.answers >= :least then c.name end as name,
    sum(c.answers) as answers,
    sum(c.good) as good,
    sum(c.promoters) as promoters,
    sum(c.detractors) as detractors,
    count(*) as cells
from cells as c
group by c.scale, c.delivery, c.dimension, case when c.answers >= :least then c.name end
order by c.scale, c.delivery, c.dimension, case when c.dimension = 'month' then case when c.answers >= :least then c.name end end, answers desc, name
