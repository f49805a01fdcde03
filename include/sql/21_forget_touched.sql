-- forget_touched: everybody is derived anew, so nobody waits for it any more.
--
-- reads   nothing
-- writes  touched_customers, moved_customers (both emptied)
-- params  none
-- re-run  safe
with moved as (
    delete from moved_customers
)

delete from touched_customers
