-- stop: throw a kill switch. It is obeyed by the next message of every worker, from the moment this is committed.
--
-- writes  kill_switches
-- params  scope text, name text, transactional_too boolean, why text, by text, now timestamptz
-- re-run  safe: one switch in force per scope and name
insert into kill_switches (scope, name, transactional_too, why, stopped_by, since)
values (:scope, :name, :transactional_too, :why, :by, :now)
on conflict (scope, name, transactional_too) where lifted_at is null do nothing
returning switch_id
