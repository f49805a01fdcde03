-- gate_events: what was reported of late about messages and people.
--
-- reads   events
-- writes  none
-- params  now timestamptz, days int
-- re-run  safe: reads only
select
    event_id,
    kind,
    at,
    known_at,
    source,
    -- clocks differ a little; a fact cannot be known long before it happens
    known_at + interval '10 minutes' as latest_at,
    message_id is not null or customer_id is not null as has_subject
from events
where known_at is null or known_at > cast(:now as timestamptz) - make_interval(days => cast(:days as int))
