-- recommend_affected: whose recommendations can have changed: the articles counted anew, and what is or was bought together with them.
--
-- reads   co_purchases, articles_in_question
-- writes  articles_affected (temporary)
-- params  none
-- re-run  safe: a name may stand there once only
insert into articles_affected (source_id, sku)
select q.source_id, q.sku
from articles_in_question as q
union
select c.source_id, c.other
from co_purchases as c
inner join articles_in_question as q on c.source_id = q.source_id and c.sku = q.sku
union
select c.source_id, c.sku
from co_purchases as c
inner join articles_in_question as q on c.source_id = q.source_id and c.other = q.sku
on conflict do nothing
