-- untold_reports: providers' reports nobody has read yet, in the order they came.
--
-- reads   event_inbox (row locks)
-- params  now timestamptz, batch int
-- re-run  safe: changes nothing
select i.inbox_id, i.source, i.raw
from event_inbox as i
where i.taken_at is null and i.raw is not null and i.payload = '{}' and i.received_at <= :now
order by i.inbox_id
limit :batch
for update skip locked
