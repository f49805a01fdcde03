-- count_features: how many customers and counted orders there are, and how many customers per stage.
--
-- reads   customers_counted (temporary view: customer_facts, or facts_now where the present stays as it is)
-- writes  nothing
-- params  none
-- re-run  safe
select
    count(*) as customers,
    count(*) filter (where stage = 'new') as new,
    count(*) filter (where stage = 'active') as active,
    count(*) filter (where stage = 'at_risk') as at_risk,
    count(*) filter (where stage = 'lapsed') as lapsed,
    cast(coalesce(sum(frequency), 0) as bigint) as orders
from customers_counted
