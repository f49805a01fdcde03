-- drop_dead: a dead letter stays dead and is listed no longer, because a person says so.
--
-- reads   messages
-- writes  interventions
-- params  message_id uuid, now timestamptz, decided_by text, why text
-- re-run  safe: only what is dead and was not dropped
insert into interventions (message_id, at, action, from_state, from_reason, to_state, decided_by, why)
select m.message_id, :now, 'dropped', m.state, m.reason, m.state, :decided_by, :why
from messages as m
where
    m.message_id = :message_id
    and m.state = 'failed'
    and not exists (
        select 1 from interventions as i where i.message_id = m.message_id and i.action = 'dropped' and i.at >= m.finalized_at
    )
returning message_id
