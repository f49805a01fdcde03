-- merge_reviews: answers about orders.
--
-- reads   staging_reviews, orders
-- writes  reviews
-- params  source text
-- re-run  safe: an equal row changes nothing
insert into reviews as t (order_id, review_key, sku, score, created_at, answered_at)
select distinct on (o.order_id, s.review_key)
    o.order_id,
    s.review_key,
    s.sku,
    cast(s.score as smallint),
    s.created_at,
    s.answered_at
from staging_reviews as s
inner join orders as o on o.source_id = :source and o.source_order_id = s.source_order_id
where cardinality(s.problems) = 0
order by o.order_id, s.review_key, s._file desc nulls last, s._row desc
on conflict (order_id, review_key) do update set
    sku = excluded.sku,
    score = coalesce(excluded.score, t.score),
    created_at = excluded.created_at,
    answered_at = coalesce(excluded.answered_at, t.answered_at)
where
    (t.sku, t.score, t.created_at, t.answered_at)
    is distinct from (
        excluded.sku, coalesce(excluded.score, t.score), excluded.created_at,
        coalesce(excluded.answered_at, t.answered_at)
    )
