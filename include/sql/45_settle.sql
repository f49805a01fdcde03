-- settle: what became of one hand-over. Only the worker that claimed it may say so.
--
-- writes  messages: sending -> sent, failed, skipped, unknown, or back to scheduled; attempts
-- params  message_id uuid, worker text, attempt int, now timestamptz, state text, reason text, detail text, provider_id text,
--         outcome text, scope text, reply text, send_at timestamptz, more_attempts int
-- re-run  safe: a settled message is no longer sending
with mine as (
    update messages as m
    set
        state = :state,
        reason = :reason,
        detail = :detail,
        provider_id = coalesce(:provider_id, m.provider_id),
        send_at = coalesce(:send_at, m.send_at),
        max_attempts = least(m.max_attempts + :more_attempts, 1000),
        -- nothing was accepted: forget the intent
        handed_over_at = case when cast(:state as text) in ('sent', 'unknown') then m.handed_over_at end,
        finalized_at = case when cast(:state as text) in ('sent', 'failed', 'skipped', 'expired') then cast(:now as timestamptz) end
    where m.message_id = :message_id and m.state = 'sending' and m.claimed_by = :worker and m.attempt = :attempt
    returning m.message_id
)

update attempts as a
set settled_at = :now, outcome = :outcome, scope = :scope, reply = :reply
from mine
where a.message_id = mine.message_id and a.attempt = :attempt
returning a.message_id
