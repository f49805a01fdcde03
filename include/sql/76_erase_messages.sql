-- erase_messages: what relays said about single messages is forgotten, and none of them goes a second time.
--
-- reads   nothing
-- writes  messages, ghost_messages
-- params  customers bigint[]
-- re-run  safe
with cleared as (
    update messages
    set detail = null, resend_at = null
    where customer_id = any(cast(:customers as bigint [])) and (detail is not null or resend_at is not null)
    returning message_id
),

ghosts as (
    update ghost_messages
    set detail = null
    where customer_id = any(cast(:customers as bigint [])) and detail is not null
    returning message_id
)

select (select count(*) from cleared) as messages, (select count(*) from ghosts) as ghosts
