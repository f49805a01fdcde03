-- foresee: when the next order of a customer begins to count, or ceases to, by the mere passing of time.
--
-- reads   orders_in_question (temporary view)
-- writes  foreseen_changes
-- params  now timestamptz
-- re-run  after forget_foreseen
insert into foreseen_changes (customer_id, at)
select
    customer_id,
    -- an order dated ahead counts from the first instant after its own
    min(case when counted_at >= :now then counted_at else cancelled_at end)
from orders_in_question
where counted_at is not null and customer_id is not null and (counted_at >= :now or cancelled_at > :now)
group by customer_id
