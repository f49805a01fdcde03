-- move_cursors: where the next pull of each raw entity begins; moved with the data it describes, in one transaction.
--
-- reads   staging_files
-- writes  source_cursors
-- params  source text, run text, now timestamptz
-- re-run  safe: staging is made from the stored place, so the place never moves back
insert into source_cursors as c (source_id, entity, cursor, run_id, moved_at)
select distinct on (entity)
    :source,
    entity,
    cursor,
    :run,
    :now
from staging_files
where cursor is not null
order by entity, number desc
on conflict (source_id, entity) do update set
    cursor = excluded.cursor,
    run_id = excluded.run_id,
    moved_at = excluded.moved_at
where c.cursor is distinct from excluded.cursor
