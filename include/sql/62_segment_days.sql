-- segment_days: per UTC day of the last 120 the size at the last look of the day, and who came and went in it.
--
-- reads   segment_sizes
-- params  segment text, now timestamptz
-- re-run  safe: only reads
select
    cast(z.as_of at time zone 'UTC' as date) as day,
    (array_agg(z.customers order by z.as_of desc))[1] as customers,
    cast(sum(z.entered) as bigint) as entered,
    cast(sum(z.departed) as bigint) as departed
from segment_sizes as z
where
    z.segment_id = :segment
    and z.as_of <= cast(:now as timestamptz)
    and z.as_of > cast(:now as timestamptz) - interval '120 days'
group by 1
order by 1
