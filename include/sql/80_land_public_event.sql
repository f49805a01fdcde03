-- land_public_event: keep what a person said on a public page until the feedback stage takes it in
--
-- reads, writes  event_inbox: one row per key
-- params         source text, key text, payload json, now timestamptz
-- re-run         safe: the same key is kept once
select public_land(:source, :key, cast(:payload as jsonb), :now)
