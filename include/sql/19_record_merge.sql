-- record_merge: from now on the record `merged` belongs to the person `kept`, with what it brought.
--
-- reads   none
-- writes  customer_merges
-- params  kept bigint, merged bigint, rule text, by_whom text, why text, now timestamptz, moved jsonb
-- re-run  refused: a record is merged once at a time
insert into customer_merges (kept, merged, rule, by_whom, why, at, moved)
values (:kept, :merged, :rule, :by_whom, :why, :now, cast(:moved as jsonb))
returning merge_id
