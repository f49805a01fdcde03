-- enter_segments: open a membership for every member who has none.
--
-- reads   members_now, members_before (both temporary)
-- writes  segment_memberships
-- params  now timestamptz
-- re-run  after leave_segments, once
with entered as (
    insert into segment_memberships (segment_id, customer_id, entered_at, seen_at)
    select new.segment_id, new.customer_id, coalesce(new.since, :now), :now
    from members_now as new
    where not exists (
        select 1
        from members_before as old
        where old.segment_id = new.segment_id and old.customer_id = new.customer_id
    )
    returning segment_id
)

select segment_id, count(*) as customers from entered group by segment_id
