-- report_segments: size of each segment at its runs of the last 90 days.
--
-- reads   segment_sizes
-- params  now timestamptz
-- re-run  safe: only reads
select z.segment_id as segment, z.as_of, z.customers, z.entered, z.departed
from segment_sizes as z
where z.as_of <= :now and z.as_of > cast(:now as timestamptz) - interval '90 days'
order by z.segment_id, z.as_of
