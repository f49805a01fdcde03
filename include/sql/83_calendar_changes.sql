-- calendar_changes: what was changed over the calendar file, as the public pages may read it.
--
-- reads   calendar_revisions
-- params  now timestamptz
-- re-run  safe: reads only
select
    c.revision,
    c.at,
    c.changes
from public_calendar_changes(:now) as c
