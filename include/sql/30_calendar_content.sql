-- calendar_content: the whole calendar as a revision left it.
--
-- reads   calendar_revisions
-- params  revision bigint
-- re-run  safe: only reads
select r.content
from calendar_revisions as r
where r.revision = :revision
