-- erase_attempts: relays name the address in what they answer.
--
-- reads   messages
-- writes  attempts
-- params  customers bigint[]
-- re-run  safe
with cleared as (
    update attempts as a
    set reply = null
    from messages as m
    where a.message_id = m.message_id and m.customer_id = any(cast(:customers as bigint [])) and a.reply is not null
    returning a.message_id
)

select count(*) as attempts from cleared
