-- set_borders: the borders between the fifths of every source, exact as of this instant.
--
-- reads   customer_facts, facts_changed, quintile_borders
-- writes  quintile_borders; facts_changed (emptied: what the borders know of now, all in one snapshot)
-- params  now timestamptz, afresh boolean
-- re-run  safe: equal borders are not written
with known as (
    delete from facts_changed
),

present as (
    select f.* from sources as s cross join lateral fifths(s.source_id, :now, cast(:afresh as boolean)) as f
)

merge into quintile_borders as old
using present as new on old.source_id = new.source_id
when matched and old is distinct from new then update set
    customers = new.customers,
    recency_days = new.recency_days,
    recency_ids = new.recency_ids,
    frequency = new.frequency,
    frequency_ids = new.frequency_ids,
    monetary = new.monetary,
    monetary_ids = new.monetary_ids,
    last_order_at = new.last_order_at,
    last_order_ids = new.last_order_ids
when not matched then insert (
    source_id, customers, recency_days, recency_ids, frequency, frequency_ids, monetary, monetary_ids, last_order_at, last_order_ids
) values (
    new.source_id, new.customers, new.recency_days, new.recency_ids, new.frequency, new.frequency_ids, new.monetary, new.monetary_ids,
    new.last_order_at, new.last_order_ids
)
when not matched by source then delete
