-- forget_entries: drop memberships first seen at this instant or later, after the clock was set back or for a second look.
--
-- reads, writes  segment_memberships
-- params         now timestamptz
-- re-run         safe
delete from segment_memberships where seen_at >= :now
