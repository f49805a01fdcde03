-- release_approved: the messages of one approved request may go, at most so many, the earliest first. With a canary they wait
-- for it.
--
-- reads, writes  messages: held (awaiting_approval) -> scheduled, or held (awaiting_canary)
-- params         approval_id bigint, at_most bigint, canary_id bigint, now timestamptz
-- re-run         safe: a released message no longer waits for an approval
with chosen as (
    select m.message_id
    from messages as m
    where
        m.approval_id = :approval_id and m.state = 'held' and m.reason = 'awaiting_approval' and m.expires_at > :now
    order by m.send_at, m.message_id
    limit cast(:at_most as bigint)
    for update
)

update messages as m
set
    state = case when cast(:canary_id as bigint) is null then 'scheduled' else 'held' end,
    reason = case when cast(:canary_id as bigint) is not null then 'awaiting_canary' end,
    canary_id = :canary_id
from chosen as c
where m.message_id = c.message_id
