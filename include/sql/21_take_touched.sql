-- take_touched: customers to derive anew: whose orders changed, and whom the passing of time moves.
--
-- reads   customer_facts, foreseen_changes
-- writes  touched_customers (emptied), customers_in_question (temporary)
-- params  now timestamptz
-- re-run  only in the transaction that derives: what is taken is gone when it commits
with taken as (
    delete from touched_customers returning customer_id
)

insert into customers_in_question (customer_id)
select customer_id from taken
union
select customer_id from customer_facts where next_stage_at <= :now
union
select customer_id from foreseen_changes where at <= :now
