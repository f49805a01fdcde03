-- approvals: requests with their decision, newest first; one by its id, or all, or only the open ones.
--
-- reads   approvals, approval_decisions, messages
-- params  approval_id bigint, only_open boolean, now timestamptz
-- re-run  safe: only reads
select
    a.approval_id,
    a.campaign_id,
    a.asked_at,
    a.expires_at,
    a.audience_hash,
    a.messages,
    a.people,
    a.causes,
    a.facts,
    case
        when d.decision is not null then d.decision
        when a.expires_at <= :now then 'expired'
        else 'open'
    end as decision,
    d.decided_by,
    d.via,
    d.comment,
    d.at_most,
    d.released,
    d.cancelled,
    d.at as decided_at,
    (
        select count(*) from messages as m
        where m.approval_id = a.approval_id and m.state = 'held' and m.reason = 'awaiting_approval'
    ) as waiting
from approvals as a
left join approval_decisions as d on a.approval_id = d.approval_id
where
    (cast(:approval_id as bigint) is null or a.approval_id = :approval_id)
    and (not cast(:only_open as boolean) or (d.decision is null and a.expires_at > :now))
order by a.approval_id desc
