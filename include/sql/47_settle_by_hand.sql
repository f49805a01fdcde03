-- settle_by_hand: a person says, with evidence, whether an unknown message arrived. What did not is a dead letter.
--
-- writes  messages: unknown -> sent, failed; interventions
-- params  message_id uuid, now timestamptz, arrived boolean, decided_by text, why text, evidence text
-- re-run  safe: only what is unknown
with open as (
    select m.message_id, m.state, m.reason
    from messages as m
    where m.message_id = :message_id and m.state = 'unknown'
    for update
),

noted as (
    insert into interventions (message_id, at, action, from_state, from_reason, to_state, decided_by, why, evidence)
    select
        o.message_id, :now, 'settled', o.state, o.reason, case when :arrived then 'sent' else 'failed' end, :decided_by, :why, :evidence
    from open as o
)

update messages as m
set
    state = case when :arrived then 'sent' else 'failed' end,
    reason = case when :arrived then null else 'not_accepted' end,
    detail = left('by hand: ' || cast(:evidence as text), 500),
    finalized_at = :now,
    resend_at = null,
    lost_answers = case when :arrived then m.lost_answers else 0 end,
    handed_over_at = case when :arrived then m.handed_over_at end
from open as o
where m.message_id = o.message_id
returning m.message_id
