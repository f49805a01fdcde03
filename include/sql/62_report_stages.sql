-- report_stages: customers and money per stage, as of the last segment run.
--
-- reads   customer_features
-- re-run  safe: only reads
select f.stage, count(*) as customers, sum(f.monetary) as monetary, round(avg(f.frequency), 2) as orders_each
from customer_features as f
group by f.stage
order by min(case f.stage when 'new' then 1 when 'active' then 2 when 'at_risk' then 3 else 4 end)
