-- count_members: present members of segments that were looked at in part.
--
-- reads   segment_memberships
-- writes  nothing
-- params  in_part text[]
-- re-run  safe
select s.segment_id, count(m.customer_id) as customers
from unnest(cast(:in_part as text[])) as s (segment_id)
left join segment_memberships as m on m.segment_id = s.segment_id and m.left_at is null
group by s.segment_id
