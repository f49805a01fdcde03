-- calendar_newest: the revision in force at an instant.
--
-- reads   calendar_revisions
-- params  now timestamptz
-- re-run  safe: only reads
select
    r.revision,
    r.content_hash
from calendar_revisions as r
where r.at <= :now
order by r.revision desc
limit 1
