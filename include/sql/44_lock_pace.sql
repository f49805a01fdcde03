-- lock_pace: the pace of a mailbox provider, locked for this transaction, so that two workers do not take the same place.
--
-- writes  provider_pace
-- params  channel text, family text, most int
-- re-run  safe: changes nothing
insert into provider_pace as p (channel, family, most)
values (:channel, :family, :most)
on conflict (channel, family) do update set most = p.most
returning p.most, p.lowered_at
