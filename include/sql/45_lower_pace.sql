-- lower_pace: the provider said "slow down": half of what was allowed.
--
-- writes  provider_pace
-- params  channel text, family text, most int, now timestamptz
-- re-run  safe: the same pace, lowered at the same instant
insert into provider_pace (channel, family, most, lowered_at)
values (:channel, :family, :most, :now)
on conflict (channel, family) do update set most = excluded.most, lowered_at = excluded.lowered_at
