-- reopen_exits: members who were seen to leave at this instant or later are members again; after forget_entries.
--
-- reads, writes  segment_memberships
-- params         now timestamptz
-- re-run         safe
update segment_memberships set left_at = null where left_at >= :now
