-- segment_overlap: present members of two segments and of both, in one walk along both.
--
-- reads   segment_memberships
-- params  one text, other text
-- re-run  safe: only reads
select
    count(m.customer_id) as one,
    count(n.customer_id) as other,
    count(*) filter (where m.customer_id = n.customer_id) as both
from (select a.customer_id from segment_memberships as a where a.segment_id = :one and a.left_at is null) as m
full join (select b.customer_id from segment_memberships as b where b.segment_id = :other and b.left_at is null) as n
    on m.customer_id = n.customer_id
