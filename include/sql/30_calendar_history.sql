-- calendar_history: revisions, the newest first, with the one that took each back.
--
-- reads   calendar_revisions
-- params  most int
-- re-run  safe: only reads
select
    r.revision,
    r.at,
    r.author,
    r.why,
    r.kind,
    r.base,
    r.reverts,
    b.revision as reverted_by,
    r.changes
from calendar_revisions as r
left join calendar_revisions as b on r.revision = b.reverts
order by r.revision desc
limit :most
