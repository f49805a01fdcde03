-- gate_orphan_events: events about a message that does not exist, or that was never handed over; must be empty.
--
-- reads   events, messages, attempts
-- writes  none
-- params  now timestamptz, days int
-- re-run  safe: reads only
select e.event_id
from events as e
left join messages as m on e.message_id = m.message_id
where
    e.message_id is not null
    and e.known_at > cast(:now as timestamptz) - make_interval(days => cast(:days as int))
    and (
        m.message_id is null
        or (
            m.handed_over_at is null
            and not exists (
                select 1 from attempts as a where a.message_id = m.message_id and a.handed_over_at is not null
            )
        )
    )
