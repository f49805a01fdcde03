-- land_events: what a channel reports, put into the inbox once per key.
--
-- writes  event_inbox
-- params  rows jsonb, source text, now timestamptz
-- re-run  safe: a report told again has the same key
insert into event_inbox (received_at, source, dedupe_key, payload)
select :now, :source, r.dedupe_key, r.payload
from jsonb_to_recordset(:rows) as r (dedupe_key text, payload jsonb)
on conflict (dedupe_key) do nothing
