-- measure_files: how the shape of a delivery differs from what the source has delivered before.
--
-- reads   staging_<source>_files, under the name staging_files; feed_columns
-- writes  none
-- params  source text
-- re-run  safe: reads only
with delivered as (
    select entity, rows_read, columns from staging_files
),

told as (
    select distinct d.entity, c.name
    from delivered as d
    cross join unnest(d.columns) as c (name)
),

known as (
    select entity, column_name as name from feed_columns where source_id = :source
)

select
    d.entity,
    count(*) filter (where d.rows_read = 0) as files_without_rows,
    (
        select count(*) from told as t
        where
            t.entity = d.entity
            and exists (select from known as k where k.entity = d.entity)
            and not exists (select from known as k where k.entity = d.entity and k.name = t.name)
    ) as new_columns,
    (
        select count(*) from known as k
        where k.entity = d.entity and not exists (select from told as t where t.entity = d.entity and t.name = k.name)
    ) as lost_columns
from delivered as d
group by d.entity
order by d.entity
