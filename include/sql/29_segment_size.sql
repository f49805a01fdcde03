-- segment_size: how large a segment is at this look, and how many came and went since the last one.
--
-- reads   nothing
-- writes  segment_sizes
-- params  segment_id text, now timestamptz, customers bigint, entered bigint, departed bigint
-- re-run  safe
insert into segment_sizes (segment_id, as_of, customers, entered, departed)
values (:segment_id, :now, :customers, :entered, :departed)
on conflict (segment_id, as_of) do update
set customers = excluded.customers, entered = excluded.entered, departed = excluded.departed
