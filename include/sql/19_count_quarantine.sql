-- count_quarantine: refused rows by source, entity and reason.
--
-- reads   quarantine
-- writes  none
-- params  source text, entity text, released boolean
-- re-run  safe: reads only
select
    q.source_id as source,
    q.entity,
    r.reason,
    count(*) as found,
    min(q.first_seen) as first_seen,
    max(q.last_seen) as last_seen
from quarantine as q
cross join unnest(q.reasons) as r (reason)
where
    (q.released_at is not null) = cast(:released as boolean)
    and q.source_id = coalesce(cast(:source as text), q.source_id)
    and q.entity = coalesce(cast(:entity as text), q.entity)
group by q.source_id, q.entity, r.reason
order by found desc, q.source_id, q.entity, r.reason
