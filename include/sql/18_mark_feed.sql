-- mark_feed: how complete the orders of a source are after this load.
--
-- reads   sources
-- writes  feed_marks
-- params  source text
-- re-run  safe: one mark for each load
insert into feed_marks (source_id, loaded_at, complete_until)
select s.source_id, s.loaded_at, s.complete_until
from sources as s
where s.source_id = :source and s.complete_until is not null
on conflict (source_id, loaded_at) do update set complete_until = excluded.complete_until
