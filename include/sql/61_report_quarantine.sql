-- report_quarantine: why rows were refused, by source and entity.
--
-- reads   quarantine
-- re-run  safe: only reads
select q.source_id as source, q.entity, reason, count(*) as rows
from quarantine as q
cross join unnest(q.reasons) as reason
where q.released_at is null
group by q.source_id, q.entity, reason
order by 4 desc, 1, 2, 3
