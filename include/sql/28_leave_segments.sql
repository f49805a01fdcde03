-- leave_segments: close the memberships of those who are not members any more, or who left and came back between two looks.
--
-- reads   members_now (temporary), segment_sizes
-- writes  segment_memberships: left_at
-- params  now timestamptz
-- re-run  safe
with last_looks as (
    select segment_id, max(as_of) as as_of from segment_sizes group by segment_id
),

departed as (
    update segment_memberships as old
    set left_at = :now
    where left_at is null and not exists (
        select 1
        from members_now as new
        left join last_looks on last_looks.segment_id = new.segment_id
        where
            new.segment_id = old.segment_id and new.customer_id = old.customer_id
            -- became true only after the last look: that is a new passage, not the one we know
            and (new.since > last_looks.as_of) is not true
    )
    returning old.segment_id
)

select segment_id, count(*) as customers from departed group by segment_id
