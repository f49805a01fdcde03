-- forget_foreseen: what was foreseen about the customers in question; foresee says it anew.
--
-- reads   customers_in_question (temporary)
-- writes  foreseen_changes
-- params  none
-- re-run  safe
delete from foreseen_changes as f
using customers_in_question as q
where f.customer_id = q.customer_id
