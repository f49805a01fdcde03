-- merge_products: the catalogue as last delivered.
--
-- reads   staging_products
-- writes  products
-- params  source text
-- re-run  safe: an older version or an equal row changes nothing
insert into products as p (source_id, sku, name, category, price, url, image_url, in_stock, updated_at)
select distinct on (sku)
    :source,
    sku,
    name,
    category,
    price,
    url,
    image_url,
    in_stock,
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
    updated_at = excluded.updated_at
where
    (p.updated_at is null or excluded.updated_at > p.updated_at)
    and (p.name, p.category, p.price, p.url, p.image_url, p.in_stock, p.updated_at)
    is distinct from (
        excluded.name, excluded.category, excluded.price, excluded.url, excluded.image_url, excluded.in_stock,
        excluded.updated_at
    )
