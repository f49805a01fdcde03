-- stale_sources: feeds whose newest complete order time lies too far back for rules that rest on absence.
--
-- reads   sources
-- params  now timestamptz
-- re-run  safe: only reads
select s.source_id
from sources as s
where
    s.complete_until is null
    or s.complete_until < cast(:now as timestamptz)
    - make_interval(secs => coalesce(cast(s.settings ->> 'fresh_within_seconds' as double precision), 129600))
order by s.source_id
