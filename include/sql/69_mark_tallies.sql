-- mark_tallies: the instant the tallies speak of.
--
-- reads, writes  tally_state
-- params         now timestamptz, everything boolean
-- re-run         safe
insert into tally_state (as_of, full_at)
values (:now, :now)
on conflict (only_row) do update
set
    as_of = excluded.as_of,
    full_at = case when cast(:everything as boolean) then excluded.full_at else tally_state.full_at end
