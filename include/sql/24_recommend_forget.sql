-- recommend_forget: the counts of the articles in question, before they are written anew.
--
-- reads   articles_in_question
-- writes  co_purchases, product_orders: deleted
-- params  none
-- re-run  safe
with pairs as (
    delete from co_purchases as c
    using articles_in_question as q
    where c.source_id = q.source_id and q.sku in (c.sku, c.other)
    returning 1
)

delete from product_orders as p
using articles_in_question as q
where p.source_id = q.source_id and p.sku = q.sku
