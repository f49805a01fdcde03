-- gate_features: the facts per customer, with what must fit together.
--
-- reads   customer_features, feature_state
-- writes  none
-- params  none
-- re-run  safe: reads only
select
    f.customer_id,
    f.source_id,
    f.first_order_at,
    f.last_order_at,
    f.recency_days,
    f.frequency,
    f.monetary,
    f.median_gap_days,
    f.stage,
    f.r_score,
    f.f_score,
    f.m_score,
    -- counted from the dates again, not taken from the table
    cast(floor(extract(epoch from s.as_of - f.last_order_at) / 86400) as int) as days_since_last_order,
    -- a gap is known exactly when there were two orders
    (f.frequency > 1) = (f.median_gap_days is not null) as gap_fits_frequency
from customer_features as f
left join feature_state as s on s.only_row
