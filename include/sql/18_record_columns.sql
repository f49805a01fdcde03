-- record_columns: which columns each raw entity of a source came with; a column that is new tomorrow can be told.
--
-- reads   staging_files
-- writes  feed_columns
-- params  source text, run text, now timestamptz
-- re-run  safe: a known column stays recorded once
insert into feed_columns (source_id, entity, column_name, first_seen, run_id)
select
    :source,
    f.entity,
    c.name,
    :now,
    :run
from staging_files as f
cross join unnest(f.columns) as c (name)
group by f.entity, c.name
on conflict do nothing
