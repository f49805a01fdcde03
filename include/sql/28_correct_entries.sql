-- correct_entries: late or cancelled orders can move the instant at which a present member's predicate became true.
--
-- reads   members_now (temporary)
-- writes  segment_memberships: entered_at
-- params  none
-- re-run  safe; after leave_segments
update segment_memberships as old
set entered_at = new.since
from members_now as new
where
    old.left_at is null and new.segment_id = old.segment_id and new.customer_id = old.customer_id
    and new.since <> old.entered_at
