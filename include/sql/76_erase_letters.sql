-- erase_letters: letters as they were written, and banners that still hang, are removed.
--
-- reads   messages
-- writes  kept_letters, banners
-- params  customers bigint[]
-- re-run  safe
with letters as (
    delete from kept_letters
    where message_id in (select m.message_id from messages as m where m.customer_id = any(cast(:customers as bigint [])))
    returning message_id
),

hung as (
    delete from banners
    where message_id in (select m.message_id from messages as m where m.customer_id = any(cast(:customers as bigint [])))
    returning message_id
)

select (select count(*) from letters) as kept_letters, (select count(*) from hung) as banners
