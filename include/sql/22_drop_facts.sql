-- drop_facts: who has no counted order left has no facts.
--
-- reads   facts_now, customers_in_question (both temporary)
-- writes  customer_facts
-- params  none
-- re-run  safe
delete from customer_facts as old
using customers_in_question as q
where old.customer_id = q.customer_id and not exists (select from facts_now as new where new.customer_id = old.customer_id)
