-- define_segment: keep the content of a segment file, and when it last changed.
--
-- reads   nothing
-- writes  segment_definitions
-- params  segment_id text, definition jsonb, version text, now timestamptz
-- re-run  safe: an unchanged file changes nothing
insert into segment_definitions as old (segment_id, definition, version, updated_at)
values (:segment_id, cast(:definition as jsonb), :version, :now)
on conflict (segment_id) do update
set definition = excluded.definition, version = excluded.version, updated_at = excluded.updated_at
where old.version <> excluded.version
