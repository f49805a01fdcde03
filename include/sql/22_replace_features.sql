-- replace_features: bring customer_features to what features_now says; rows that are equal are not touched.
--
-- reads   features_now (temporary)
-- writes  customer_features; readers see the old rows until the commit
-- params  none
-- re-run  safe: changes nothing the second time
merge into customer_features as old
using features_now as new on old.customer_id = new.customer_id
when matched and (
    old.source_id, old.first_order_at, old.last_order_at, old.last_order_id, old.recency_days, old.frequency, old.monetary,
    old.median_gap_days, old.stage, old.stage_since, old.next_stage_at, old.loyal_since, old.r_score, old.f_score, old.m_score
) is distinct from (
    new.source_id, new.first_order_at, new.last_order_at, new.last_order_id, new.recency_days, new.frequency, new.monetary,
    new.median_gap_days, new.stage, new.stage_since, new.next_stage_at, new.loyal_since, new.r_score, new.f_score, new.m_score
) then update set
    source_id = new.source_id,
    first_order_at = new.first_order_at,
    last_order_at = new.last_order_at,
    last_order_id = new.last_order_id,
    recency_days = new.recency_days,
    frequency = new.frequency,
    monetary = new.monetary,
    median_gap_days = new.median_gap_days,
    stage = new.stage,
    stage_since = new.stage_since,
    next_stage_at = new.next_stage_at,
    loyal_since = new.loyal_since,
    r_score = new.r_score,
    f_score = new.f_score,
    m_score = new.m_score
when not matched then insert (
    customer_id, source_id, first_order_at, last_order_at, last_order_id, recency_days, frequency, monetary,
    median_gap_days, stage, stage_since, next_stage_at, loyal_since, r_score, f_score, m_score
) values (
    new.customer_id, new.source_id, new.first_order_at, new.last_order_at, new.last_order_id, new.recency_days, new.frequency, new.monetary,
    new.median_gap_days, new.stage, new.stage_since, new.next_stage_at, new.loyal_since, new.r_score, new.f_score, new.m_score
)
when not matched by source then delete
