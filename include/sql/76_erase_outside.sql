-- erase_outside: what other systems told in detail.
--
-- reads   nothing
-- writes  external_events
-- params  customers bigint[]
-- re-run  safe
with cleared as (
    update external_events
    set detail = '{}'
    where customer_id = any(cast(:customers as bigint [])) and detail <> '{}'
    returning event_key
)

select count(*) as external_events from cleared
