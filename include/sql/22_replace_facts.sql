-- replace_facts: bring customer_facts to what facts_now says; rows that are equal are not touched.
--
-- reads   facts_now (temporary)
-- writes  customer_facts; readers see the old rows until the commit
-- params  none
-- re-run  safe: changes nothing the second time
merge into customer_facts as old
using facts_now as new on old.customer_id = new.customer_id
when matched and (
    old.source_id, old.first_order_at, old.last_order_at, old.last_order_id, old.frequency,
    old.monetary, old.median_gap_days, old.stage, old.stage_since, old.next_stage_at, old.loyal_since
) is distinct from (
    new.source_id, new.first_order_at, new.last_order_at, new.last_order_id, new.frequency,
    new.monetary, new.median_gap_days, new.stage, new.stage_since, new.next_stage_at, new.loyal_since
) then update set
    source_id = new.source_id,
    first_order_at = new.first_order_at,
    last_order_at = new.last_order_at,
    last_order_id = new.last_order_id,
    frequency = new.frequency,
    monetary = new.monetary,
    median_gap_days = new.median_gap_days,
    stage = new.stage,
    stage_since = new.stage_since,
    next_stage_at = new.next_stage_at,
    loyal_since = new.loyal_since
when not matched then insert (
    customer_id,
    source_id, first_order_at, last_order_at, last_order_id, frequency,
    monetary, median_gap_days, stage, stage_since, next_stage_at, loyal_since
) values (
    new.customer_id,
    new.source_id, new.first_order_at, new.last_order_at, new.last_order_id, new.frequency,
    new.monetary, new.median_gap_days, new.stage, new.stage_since, new.next_stage_at, new.loyal_since
)
