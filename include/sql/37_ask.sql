-- ask: write down a request for approval, and hold its messages for it. A request still open for the campaign is superseded.
--
-- reads   approval_decisions
-- writes  approvals, approval_decisions, messages: held for this request
-- params  campaign text, now timestamptz, run_id text, expires_at timestamptz, audience_hash text, messages bigint, people bigint,
--         causes jsonb, facts jsonb
-- re-run  the caller asks only when no open request has the same audience
with asked as (
    insert into approvals (campaign_id, run_id, asked_at, expires_at, audience_hash, messages, people, causes, facts)
    values (:campaign, :run_id, :now, :expires_at, :audience_hash, :messages, :people, :causes, :facts)
    returning approval_id
),

superseded as (
    insert into approval_decisions (approval_id, decision, decided_by, via, comment, audience_hash, at)
    select a.approval_id, 'superseded', 'postlude', 'system', 'a later plan asked about another audience', a.audience_hash, :now
    from approvals as a
    where
        a.campaign_id = :campaign
        and not exists (select 1 from approval_decisions as d where d.approval_id = a.approval_id)
    on conflict do nothing
    returning approval_id
),

held as (
    update messages as m
    set reason = 'awaiting_approval', approval_id = a.approval_id, canary_id = null
    from asked as a
    where
        m.campaign_id = :campaign and m.state = 'held' and m.reason in ('awaiting_check', 'awaiting_approval', 'canary_failed')
    returning m.message_id
)

select a.approval_id, (select count(*) from held) as held, (select count(*) from superseded) as superseded
from asked as a
