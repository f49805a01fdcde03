-- gate_staged: how many rows of one entity a source delivered, and how many of them were refused at the door.
--
-- reads   staging_<source>_<entity>, under the name staged_rows
-- writes  none
-- params  entity text, free_rows int, free_unknown int
-- re-run  safe: reads only
select
    cast(:entity as text) as entity,
    count(*) as delivered,
    count(*) filter (where cardinality(problems) > 0) as refused,
    count(*) filter (where coalesce(cardinality(problems), 0) = 0) as accepted,
    -- a handful of bad rows is no share, unless nothing else came
    case
        when count(*) filter (where cardinality(problems) > 0) <= least(cast(:free_rows as int), count(*) - 1) then 0
        when count(*) = 0 then 0
        else cast(count(*) filter (where cardinality(problems) > 0) as numeric) / count(*)
    end as refused_share,
    -- a word nobody knows is a change of the source: the limit is lower
    case
        when count(*) filter (where array_to_string(problems, ' ') like '%: not a known %') <= cast(:free_unknown as int) then 0
        else
            cast(count(*) filter (where array_to_string(problems, ' ') like '%: not a known %') as numeric) / count(*)
    end as unknown_share
from staged_rows
