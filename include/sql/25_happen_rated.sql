-- happen_rated: a very good answer asks for a review and a recommendation, a bad one for help.
--
-- reads   ratings, orders, order_lines, products, customers
-- writes  external_events
-- params  now timestamptz, reach interval
-- re-run  safe: named by the rating
insert into external_events (source_id, event_key, customer_id, kind, at, known_at, order_id, detail, worked_out)
select
    c.source_id,
    'postlude:rated:' || r.rating,
    r.customer_id,
    k.kind,
    r.at,
    :now,
    r.order_id,
    jsonb_build_object(
        'score', r.score, 'scale', r.scale, 'sku', coalesce(r.sku, i.sku), 'name', coalesce(p.name, i.name), 'url', coalesce(p.url, i.url),
        'order_number', o.source_order_id
    ),
    true
from ratings as r
inner join customers as c on r.customer_id = c.customer_id
left join orders as o on r.order_id = o.order_id
left join products as p on o.source_id = p.source_id and r.sku = p.sku
left join lateral (
    -- the main item of the order
    select
        l.sku,
        coalesce(q.name, l.description) as name,
        q.url
    from order_lines as l
    left join products as q on l.sku = q.sku and o.source_id = q.source_id
    where l.order_id = r.order_id and l.counted
    order by l.quantity * l.unit_price desc, l.line_key
    limit 1
) as i on true
cross join lateral (select rating_group(r.score, r.scale) as kind) as k
where
    k.kind in ('promoter', 'detractor')
    -- who was pleased with the carrier has not said so of the item
    and (k.kind = 'detractor' or r.about <> 'delivery')
    and r.at <= :now
    and r.known_at <= :now
    and r.at > cast(:now as timestamptz) - cast(:reach as interval)
    -- an answer changed by a later click counts as it stands
    and not exists (
        select 1 from ratings as n
        where
            n.customer_id = r.customer_id
            and n.order_id is not distinct from r.order_id
            and n.campaign_id is not distinct from r.campaign_id
            and n.about = r.about
            and n.at > r.at
            and n.at <= :now
    )
on conflict do nothing
