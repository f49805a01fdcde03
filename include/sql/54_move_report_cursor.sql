-- move_report_cursor: so far a list of a provider has been read; never back.
--
-- writes  report_cursors
-- params  channel text, provider text, list text, seen_at timestamptz, now timestamptz
-- re-run  safe: it stays where it is
insert into report_cursors as c (channel, provider, list, seen_at, moved_at)
values (:channel, :provider, :list, :seen_at, :now)
on conflict (channel, provider, list) do update
    set seen_at = excluded.seen_at, moved_at = excluded.moved_at
    where c.seen_at < excluded.seen_at
