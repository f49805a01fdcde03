-- record_loads: which files were loaded, by their content.
--
-- reads   staging_files
-- writes  loads
-- params  source text, run text, now timestamptz
-- re-run  safe: a known content stays recorded once
insert into loads (source_id, entity, name, checksum, rows_read, run_id, loaded_at)
select
    :source,
    entity,
    name,
    checksum,
    rows_read,
    :run,
    :now
from staging_files
order by number
on conflict (source_id, entity, checksum) do nothing
