-- expire_held: what waits for an approval, a check or a canary is not true for ever.
--
-- writes  messages: held -> expired; approval_decisions
-- params  now timestamptz
-- re-run  safe: an expired message is no longer held
with expired as (
    update messages as m
    set
        state = 'expired',
        reason = case m.reason when 'awaiting_approval' then 'approval_expired' else 'too_late' end,
        finalized_at = :now
    where m.state = 'held' and m.expires_at <= :now
    returning m.message_id
),

closed as (
    insert into approval_decisions (approval_id, decision, decided_by, via, comment, audience_hash, at)
    select a.approval_id, 'expired', 'postlude', 'system', 'nobody decided in time', a.audience_hash, :now
    from approvals as a
    where
        a.expires_at <= :now
        and not exists (select 1 from approval_decisions as d where d.approval_id = a.approval_id)
    on conflict do nothing
    returning approval_id
)

select (select count(*) from expired) as expired, (select count(*) from closed) as approvals_expired
