-- segment_overlap: present members of two segments and of both.
--
-- reads   segment_memberships
-- params  one text, other text
-- re-run  safe: only reads
select
    (select count(*) from segment_memberships as m where m.segment_id = :one and m.left_at is null) as one,
    (select count(*) from segment_memberships as m where m.segment_id = :other and m.left_at is null) as other,
    (
        select count(*)
        from segment_memberships as m
        inner join segment_memberships as n on m.customer_id = n.customer_id
        where m.segment_id = :one and m.left_at is null and n.segment_id = :other and n.left_at is null
    ) as both
