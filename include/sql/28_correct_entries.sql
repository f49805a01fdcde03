-- correct_entries: late or cancelled orders can move the instant at which a present member's predicate became true.
--
-- reads   members_now, members_before (both temporary)
-- writes  segment_memberships: entered_at
-- params  none
-- re-run  safe; after leave_segments
update segment_memberships as old
set entered_at = new.since
from members_now as new
inner join members_before as b on b.segment_id = new.segment_id and b.customer_id = new.customer_id
where
    old.segment_id = b.segment_id and old.customer_id = b.customer_id and old.seen_at = b.seen_at
    and new.since <> old.entered_at
