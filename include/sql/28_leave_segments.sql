-- leave_segments: close the memberships of those who are not members any more, or who left and came back between two looks.
--
-- reads   members_now (temporary), segment_sizes
-- writes  segment_memberships: left_at; members_before (temporary): only who stays is left in it
-- params  now timestamptz
-- re-run  safe
with last_looks as (
    select segment_id, max(as_of) as as_of from segment_sizes group by segment_id
),

staying as (
    select new.segment_id, new.customer_id
    from members_now as new
    left join last_looks on last_looks.segment_id = new.segment_id
    -- became true only after the last look: that is a new passage, not the one we know
    where (new.since > last_looks.as_of) is not true
),

departing as (
    delete from members_before as b
    where not exists (select from staying as s where s.segment_id = b.segment_id and s.customer_id = b.customer_id)
    returning b.segment_id, b.customer_id, b.seen_at
),

departed as (
    update segment_memberships as old
    set left_at = :now
    from departing as d
    where old.segment_id = d.segment_id and old.customer_id = d.customer_id and old.seen_at = d.seen_at
    returning old.segment_id
)

select segment_id, count(*) as customers from departed group by segment_id
