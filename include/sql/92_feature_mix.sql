-- feature_mix: customers per source and stage, for comparison with the next run.
--
-- reads   customer_features
-- writes  none
-- params  none
-- re-run  safe: reads only
select
    source_id,
    stage,
    count(*) as customers
from customer_features
group by source_id, stage
order by source_id, stage
