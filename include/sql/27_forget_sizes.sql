-- forget_sizes: drop the looks taken at this instant or later; this run takes them anew.
--
-- reads, writes  segment_sizes
-- params         now timestamptz
-- re-run         safe
delete from segment_sizes where as_of >= :now
