-- recover: claims whose worker is gone. Before the dot nothing can have been accepted: back to scheduled.
-- After it nobody can know: unknown. One statement moves message and attempt together.
--
-- writes  messages: sending -> scheduled, unknown; attempts
-- params  now timestamptz, lease interval
-- re-run  safe: a recovered message is no longer sending
with lost as (
    update messages as m
    set
        state = case when m.handed_over_at is null then 'scheduled' else 'unknown' end,
        reason = case when m.handed_over_at is null then 'worker_lost' else 'answer_lost' end,
        max_attempts = m.max_attempts + case when m.handed_over_at is null then 1 else 0 end
    where m.state = 'sending' and m.claimed_at < cast(:now as timestamptz) - cast(:lease as interval)
    returning m.message_id, m.attempt, m.state
),

closed as (
    update attempts as a
    set settled_at = :now, outcome = case when a.handed_over_at is null then 'released' else 'ambiguous' end
    from lost as l
    where a.message_id = l.message_id and a.attempt = l.attempt and a.settled_at is null
    returning a.message_id
)

select
    count(*) filter (where l.state = 'scheduled') as released,
    count(*) filter (where l.state = 'unknown') as unknown
from lost as l
