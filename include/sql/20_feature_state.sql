-- feature_state: what customer_facts speaks of and by which rules it was made; no row before the first run.
--
-- reads   feature_state
-- writes  nothing
-- params  none
-- re-run  safe
select
    as_of,
    rules,
    segments
from feature_state
