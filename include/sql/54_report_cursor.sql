-- report_cursor: how far a list of a provider has been read.
--
-- reads   report_cursors
-- params  channel text, provider text, list text
-- re-run  safe: only reads
select c.seen_at
from report_cursors as c
where c.channel = :channel and c.provider = :provider and c.list = :list
