-- calendar_changes: all revisions with what they changed, in their order.
--
-- reads   calendar_revisions
-- params  none
-- re-run  safe: only reads
select
    r.revision,
    r.at,
    r.changes
from calendar_revisions as r
order by r.revision
