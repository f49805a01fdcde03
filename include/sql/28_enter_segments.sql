-- enter_segments: open a membership for every member who has none.
--
-- reads   members_now (temporary)
-- writes  segment_memberships
-- params  now timestamptz
-- re-run  safe; after leave_segments
with entered as (
    insert into segment_memberships (segment_id, customer_id, entered_at, seen_at)
    select new.segment_id, new.customer_id, coalesce(new.since, :now), :now
    from members_now as new
    where not exists (
        select 1
        from segment_memberships as old
        where old.segment_id = new.segment_id and old.customer_id = new.customer_id and old.left_at is null
    )
    returning segment_id
)

select segment_id, count(*) as customers from entered group by segment_id
