-- refusals: why rows of one entity were refused at the door, most frequent first.
--
-- reads   staging_<source>_<entity>, under the name staged_rows
-- writes  none
-- params  entity text
-- re-run  safe: reads only
select
    cast(:entity as text) as entity,
    reason,
    count(*) as found
from (select unnest(problems) as reason from staged_rows) as r
group by reason
