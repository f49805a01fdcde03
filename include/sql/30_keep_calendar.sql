-- keep_calendar: a new revision of the calendar.
--
-- writes  calendar_revisions
-- params  now timestamptz, author text, why text, content jsonb, content_hash text, kind text, changes jsonb, base bigint,
--         reverts bigint
-- re-run  adds another one: the caller compares first
insert into calendar_revisions (at, author, why, content, content_hash, kind, changes, base, reverts)
values (:now, :author, :why, :content, :content_hash, :kind, :changes, :base, :reverts)
returning revision
