-- forget_feed_days: on the copy of a simulation: days of the feeds that will not come are not missed.
--
-- writes  feed_days, feed_marks
-- params  none
-- re-run  safe
with days as (delete from feed_days)

delete from feed_marks
