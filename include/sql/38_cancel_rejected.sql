-- cancel_rejected: nobody gets the messages of a rejected request. Neither do the ghosts of that plan get a turn, when nothing of it was
-- let go before: a control group compared with people who got nothing would measure nothing.
--
-- reads          messages
-- reads, writes  messages: held (awaiting_approval) -> cancelled; ghost_messages: scheduled -> cancelled
-- params         approval_id bigint, now timestamptz
-- re-run         safe: a cancelled message is no longer held
with cancelled as (
    update messages
    set state = 'cancelled', reason = 'not_approved', finalized_at = :now
    where approval_id = :approval_id and state = 'held' and reason = 'awaiting_approval'
    returning message_id, campaign_id, run_id
),

plans as (
    select r.campaign_id, r.run_id
    from (select distinct c.campaign_id, c.run_id from cancelled as c) as r
    where not exists (
        select 1 from messages as m
        where
            m.campaign_id = r.campaign_id
            and m.run_id = r.run_id
            and m.state in ('scheduled', 'sending', 'sent', 'unknown', 'failed', 'held')
            and not exists (select 1 from cancelled as x where x.message_id = m.message_id)
    )
),

laid_to_rest as (
    update ghost_messages as g
    set state = 'cancelled', reason = 'not_approved', finalized_at = :now
    from plans as p
    where g.campaign_id = p.campaign_id and g.run_id = p.run_id and g.state = 'scheduled'
)

select count(*) from cancelled
