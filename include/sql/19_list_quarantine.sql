-- list_quarantine: refused rows that wait, oldest first, without what they say.
--
-- reads   quarantine
-- writes  none
-- params  source text, entity text, reason text, most int
-- re-run  safe: reads only
select
    q.quarantine_id as id,
    q.source_id as source,
    q.entity,
    q.reasons,
    q.first_seen,
    q.last_seen,
    q.replays
from quarantine as q
where
    q.released_at is null
    and q.source_id = coalesce(cast(:source as text), q.source_id)
    and q.entity = coalesce(cast(:entity as text), q.entity)
    and (
        cast(:reason as text) is null
        or exists (select 1 from unnest(q.reasons) as r (reason) where position(cast(:reason as text) in r.reason) > 0)
    )
order by q.first_seen, q.quarantine_id
limit cast(:most as int)
