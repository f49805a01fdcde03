-- members_before: open memberships this look judges: those of moved customers, or all of a segment it looks at as a whole.
--
-- reads   segment_memberships, moved_now (temporary)
-- writes  members_before (temporary)
-- params  in_part text[]
-- re-run  into an empty table
insert into members_before (segment_id, customer_id, seen_at)
select m.segment_id, m.customer_id, m.seen_at
from segment_memberships as m
where m.left_at is null and m.segment_id <> all(cast(:in_part as text[]))
union all
select m.segment_id, m.customer_id, m.seen_at
from moved_now as q
cross join unnest(cast(:in_part as text[])) as s (segment_id)
inner join segment_memberships as m on m.segment_id = s.segment_id and m.customer_id = q.customer_id and m.left_at is null
