-- feed_verdicts: every feed of every source against its own history; `reason` says why it is stale, null: it is fresh.
--
-- reads   sources, feed_days, feed_marks
-- params  now timestamptz, share double precision, least bigint
-- re-run  safe: only reads
select v.* from feed_verdicts(:now, :share, :least) as v order by v.source_id, v.entity
