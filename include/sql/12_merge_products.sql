-- merge_products: the catalogue as last delivered; what went out of stock, came back or changed its price is kept as a change, also
-- between several versions of a row in one delivery.
--
-- reads   staging_products, products
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
    returning new.sku
),

-- the versions newer than what is stored, each beside the one before it
versions as (
    select
        v.sku,
        v.updated_at,
        v.price,
        coalesce(v.in_stock, v.stock > 0) as in_stock,
        v.stock,
        lag(v.price, 1, p.price) over w as old_price,
        lag(coalesce(v.in_stock, v.stock > 0), 1, p.in_stock) over w as old_in_stock
    from staging_products as v
    left join products as p on p.source_id = :source and v.sku = p.sku
    where
        cardinality(v.problems) = 0
        and v.sku in (select m.sku from merged as m)
        and (p.updated_at is null or v.updated_at > p.updated_at)
    window w as (partition by v.sku order by v.updated_at nulls first, v._file nulls first, v._row)
),

changes as (
    insert into product_changes (source_id, sku, at, known_at, what, was, now)
    select
        :source,
        v.sku,
        least(coalesce(v.updated_at, :now), cast(:now as timestamptz)),
        :now,
        c.what,
        c.was,
        c.now
    from versions as v
    cross join lateral (
        select
            'price' as what,
            v.old_price as was,
            v.price as now
        where v.old_price <> v.price
        union all
        select
            case when v.in_stock then 'back' else 'gone' end,
            null,
            case when v.in_stock then v.stock end
        -- from "not told" to "here" nothing came back
        where v.old_in_stock <> v.in_stock
    ) as c
    order by v.updated_at nulls first, v.sku, c.what
    returning 1
)

select count(*) as products
from merged
