-- measure_freshness: how many hours the newest order of a source, with this delivery, is older than its file permits.
--
-- reads   staging_<source>_orders, under the name staging_orders; sources
-- writes  none
-- params  source text, now timestamptz
-- re-run  safe: reads only
select
    round(cast(extract(epoch from (
        cast(:now as timestamptz)
        - make_interval(secs => cast(s.settings ->> 'fresh_within_seconds' as double precision))
        - greatest(s.complete_until, (
            select max(placed_at) from staging_orders where coalesce(cardinality(problems), 0) = 0
        ))
    )) / 3600 as numeric), 1) as hours_over
from sources as s
where s.source_id = :source
