-- go: lift the switches of one scope and name; who threw them and why stays on record.
--
-- writes  kill_switches
-- params  scope text, name text, why text, by text, now timestamptz
-- re-run  safe: a lifted switch stays lifted
update kill_switches
set lifted_at = :now, lifted_by = :by, lift_reason = :why
where scope = :scope and name = :name and lifted_at is null
returning switch_id
