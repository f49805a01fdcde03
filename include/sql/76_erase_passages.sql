-- erase_passages: an erased person is under way in nothing, and nothing planned goes out.
--
-- reads   nothing
-- writes  enrolments, messages, ghost_messages
-- params  customers bigint[], now timestamptz
-- re-run  safe: what has ended stays as it ended
with ended as (
    update enrolments
    set exited_at = :now, exit_reason = 'suppressed'
    where customer_id = any(cast(:customers as bigint [])) and exited_at is null
    returning enrolment_id
),

cancelled as (
    update messages
    set state = 'cancelled', reason = 'erased', finalized_at = :now
    where customer_id = any(cast(:customers as bigint [])) and state in ('scheduled', 'held')
    returning message_id
),

laid_to_rest as (
    update ghost_messages
    set state = 'cancelled', reason = 'erased', finalized_at = :now
    where customer_id = any(cast(:customers as bigint [])) and state = 'scheduled'
    returning message_id
)

select
    (select count(*) from ended) as enrolments,
    (select count(*) from cancelled) as messages_cancelled,
    (select count(*) from laid_to_rest) as ghost_messages
