-- settle: what became of hand-overs. Only the worker that claimed a message may say so; gives the ids of those that were its own.
--
-- writes  messages: sending -> sent, failed, skipped, unknown, or back to scheduled; attempts
-- params  rows jsonb, worker text, now timestamptz
-- re-run  safe: a settled message is no longer sending
with told as (
    select r.*
    from jsonb_to_recordset(:rows) as r (
        message_id uuid, attempt int, state text, reason text, detail text, provider_id text, outcome text, scope text, reply text,
        send_at timestamptz, more_attempts int
    )
),

mine as (
    update messages as m
    set
        state = t.state,
        reason = t.reason,
        detail = t.detail,
        provider_id = coalesce(t.provider_id, m.provider_id),
        send_at = coalesce(t.send_at, m.send_at),
        max_attempts = least(m.max_attempts + t.more_attempts, 1000),
        -- nothing was accepted: forget the intent
        handed_over_at = case when t.state in ('sent', 'unknown') then m.handed_over_at end,
        finalized_at = case when t.state in ('sent', 'failed', 'skipped', 'expired') then cast(:now as timestamptz) end
    from told as t
    where
        -- by its key, and not by the index of what is open, which is long where much is unknown
        m.message_id = t.message_id
        and coalesce(m.state, '') = 'sending'
        and m.claimed_by = :worker
        and m.attempt = t.attempt
    returning m.message_id, t.attempt, t.outcome, t.scope, t.reply
)

update attempts as a
set settled_at = :now, outcome = mine.outcome, scope = mine.scope, reply = mine.reply
from mine
where a.message_id = mine.message_id and a.attempt = mine.attempt
returning cast(a.message_id as text) as message_id
