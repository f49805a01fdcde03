-- merge_products: the catalogue as last delivered; what went out of stock, came back or changed its price is kept as a change.
--
-- reads   staging_products
-- writes  products; product_changes
-- params  source text, now timestamptz
-- re-run  safe: an older version or an equal row changes nothing
with merged as (
    insert into products as p (source_id, sku, name, category, price, url, image_url, in_stock, stock, cost, updated_at)
    select distinct on (sku)
        :source,
        sku,
        name,
        category,
        price,
        url,
        image_url,
        coalesce(in_stock, stock > 0),
        stock,
        cost,
        updated_at
    from staging_products
    where cardinality(problems) = 0
    order by sku, updated_at desc nulls last, _file desc nulls last, _row desc
    on conflict (source_id, sku) do update set
        name = excluded.name,
        category = excluded.category,
        price = excluded.price,
        url = excluded.url,
        image_url = excluded.image_url,
        in_stock = excluded.in_stock,
        stock = excluded.stock,
        cost = coalesce(excluded.cost, p.cost),
        updated_at = excluded.updated_at
    where
        (p.updated_at is null or excluded.updated_at > p.updated_at)
        and (p.name, p.category, p.price, p.url, p.image_url, p.in_stock, p.stock, p.cost, p.updated_at)
        is distinct from (
            excluded.name, excluded.category, excluded.price, excluded.url, excluded.image_url, excluded.in_stock,
            excluded.stock, coalesce(excluded.cost, p.cost), excluded.updated_at
        )
    returning
        new.sku as sku, new.updated_at as updated_at, new.price as price, new.in_stock as in_stock, new.stock as stock,
        old.sku as known, old.price as old_price, old.in_stock as old_in_stock
),

changes as (
    insert into product_changes (source_id, sku, at, known_at, what, was, now)
    select
        :source,
        m.sku,
        least(coalesce(m.updated_at, :now), cast(:now as timestamptz)),
        :now,
        c.what,
        c.was,
        c.now
    from merged as m
    cross join lateral (
        select
            'price' as what,
            m.old_price as was,
            m.price as now
        where m.old_price <> m.price
        union all
        select
            case when m.in_stock then 'back' else 'gone' end,
            null,
            case when m.in_stock then m.stock end
        -- from "not told" to "here" nothing came back
        where m.old_in_stock <> m.in_stock
    ) as c
    where m.known is not null
    returning 1
)

select count(*) as products
from merged
