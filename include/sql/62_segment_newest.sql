-- segment_newest: each segment's size at its newest look, and who came and went within a day before it.
--
-- reads   segment_sizes
-- params  now timestamptz
-- re-run  safe: only reads
select
    d.segment_id,
    n.as_of,
    n.customers,
    n.entered,
    n.departed
from (select distinct z.segment_id from segment_sizes as z) as d
cross join lateral (
    select
        z.as_of,
        z.customers,
        (
            select cast(sum(y.entered) as bigint) from segment_sizes as y
            where y.segment_id = z.segment_id and y.as_of > z.as_of - interval '1 day' and y.as_of <= z.as_of
        ) as entered,
        (
            select cast(sum(y.departed) as bigint) from segment_sizes as y
            where y.segment_id = z.segment_id and y.as_of > z.as_of - interval '1 day' and y.as_of <= z.as_of
        ) as departed
    from segment_sizes as z
    where z.segment_id = d.segment_id and z.as_of <= :now
    order by z.as_of desc
    limit 1
) as n
