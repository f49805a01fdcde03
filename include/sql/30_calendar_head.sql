-- calendar_head: the newest change of the calendar by a person; 0: there is none.
--
-- reads   calendar_revisions
-- params  none
-- re-run  safe: only reads
select coalesce(max(r.revision), 0) as head
from calendar_revisions as r
where r.kind <> 'file'
