-- note_moved: whose memberships the next update of the segments looks at.
--
-- reads   customers_in_question (temporary)
-- writes  moved_customers
-- params  none
-- re-run  safe: a name may stand there twice
insert into moved_customers select customer_id from customers_in_question
