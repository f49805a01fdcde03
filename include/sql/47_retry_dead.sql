-- retry_dead: a dead letter is due again because a person says so. The claim reads every rule again.
--
-- writes  messages: failed -> scheduled; interventions
-- params  message_id uuid, now timestamptz, decided_by text, why text
-- re-run  safe: only what is dead
with dead as (
    select m.message_id, m.state, m.reason
    from messages as m
    where m.message_id = :message_id and m.state = 'failed'
    for update
),

noted as (
    insert into interventions (message_id, at, action, from_state, from_reason, to_state, decided_by, why)
    select d.message_id, :now, 'retried', d.state, d.reason, 'scheduled', :decided_by, :why
    from dead as d
)

update messages as m
set
    state = 'scheduled', reason = 'retried', detail = null, finalized_at = null, send_at = :now,
    max_attempts = least(m.attempt + 5, 1000)
from dead as d
where m.message_id = d.message_id
returning m.message_id
