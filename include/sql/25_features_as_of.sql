-- features_as_of: the instant customer_features speaks of; no row before the first run.
--
-- reads   feature_state
-- writes  nothing
-- params  none
-- re-run  safe
select as_of from feature_state
