-- land_report: keep what a provider reported, as it came, until the feedback stage takes it in
--
-- reads, writes  event_inbox: one row per key
-- params         source text, key text, raw json, now timestamptz
-- re-run         safe: the same key is kept once
select public_land_report(:source, :key, cast(:raw as jsonb), :now) as stored
