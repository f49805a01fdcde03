-- loyalty_enter: one entry by hand or by a shop's system; the same ref is entered once.
--
-- reads   none
-- writes  loyalty_ledger
-- params  customer bigint, kind text, points int, now timestamptz, expires_at timestamptz, reason text, by text, ref text
-- re-run  safe: named by ref
insert into loyalty_ledger (customer_id, kind, points, at, known_at, expires_at, reason, by, ref)
values (:customer, :kind, :points, :now, :now, :expires_at, :reason, :by, :ref)
on conflict (ref) do nothing
