-- preferences: what the customer who got this message has chosen; no row for a message that is not there
--
-- reads   messages, customers, consents, suppressions, breaks
-- params  message uuid, topics text[], now timestamptz
-- re-run  safe: reads only
select
    p.masked,
    p.break_until,
    p.suppressed,
    p.agreed
from public_preferences(cast(:message as uuid), cast(:topics as text []), :now) as p
