-- take_moved: customers whose memberships may have changed since the last look.
--
-- reads   nothing
-- writes  moved_customers (emptied), moved_now (temporary)
-- params  none
-- re-run  only in the transaction that looks: what is taken is gone when it commits
with taken as (
    delete from moved_customers returning customer_id
)

insert into moved_now (customer_id) select distinct customer_id from taken
