-- land_reports: what a provider's list tells, put into the inbox as it came, once per key; the web hook may have brought it already.
--
-- writes  event_inbox
-- params  rows jsonb, provider text, now timestamptz
-- re-run  safe: a report told again has the same key
insert into event_inbox (received_at, source, dedupe_key, payload, raw)
select
    :now,
    :provider,
    r.dedupe_key,
    '{}',
    r.raw
from jsonb_to_recordset(:rows) as r (dedupe_key text, raw jsonb)
where length(r.dedupe_key) <= 500
on conflict (dedupe_key) do nothing
