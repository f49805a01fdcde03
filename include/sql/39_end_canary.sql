-- end_canary: the share was watched. The rest of its release may go, or is held until somebody approves it anew; after a
-- failure also what of the share has not gone yet is held.
--
-- writes  canaries, messages: held (awaiting_canary) -> scheduled, or held (canary_failed)
-- params  canary_id bigint, outcome text, figures jsonb, now timestamptz
-- re-run  safe: a judged canary stays judged
with judged as (
    update canaries as c
    set outcome = :outcome, judged_at = :now, figures = :figures
    where c.canary_id = :canary_id and c.outcome is null
    returning c.canary_id, c.outcome
),

moved as (
    update messages as m
    set
        state = case j.outcome when 'failed' then 'held' else 'scheduled' end,
        reason = case j.outcome when 'failed' then 'canary_failed' end
    from judged as j
    where
        m.canary_id = j.canary_id
        and (
            (m.state = 'held' and m.reason = 'awaiting_canary')
            or (m.state = 'scheduled' and j.outcome = 'failed')
        )
    returning m.message_id
)

select count(*) as moved from moved
