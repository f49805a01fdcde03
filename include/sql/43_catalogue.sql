-- catalogue: what the catalogue says now of the articles that letters are about.
--
-- reads   products
-- params  sources text[], skus text[] (as long as sources)
-- re-run  safe: only reads
select
    p.source_id,
    p.sku,
    p.name,
    p.price,
    p.url,
    p.image_url,
    p.in_stock
from unnest(cast(:sources as text []), cast(:skus as text [])) as n (source_id, sku)
inner join products as p on n.source_id = p.source_id and n.sku = p.sku
