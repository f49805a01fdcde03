-- mark_segments: the memberships of these segments hold now, by these conditions.
--
-- reads   nothing
-- writes  feature_state: segments
-- params  segments jsonb
-- re-run  safe
update feature_state set segments = cast(:segments as jsonb) where segments is distinct from cast(:segments as jsonb)
