-- list_merges: who was found to be the same person, by which rule, and what was undone. Ids only.
--
-- reads   customer_merges, customers
-- writes  none
-- params  customer bigint
-- re-run  safe: reads only
select
    m.merge_id as merge,
    m.kept,
    m.merged,
    k.source_id as kept_in,
    o.source_id as merged_in,
    m.rule,
    m.by_whom,
    m.why,
    m.at,
    m.split_at,
    m.split_by,
    m.split_why
from customer_merges as m
inner join customers as k on m.kept = k.customer_id
inner join customers as o on m.merged = o.customer_id
where cast(:customer as bigint) is null or cast(:customer as bigint) in (m.kept, m.merged)
order by m.merge_id
