-- loyalty_balance: one customer's points, locked until the transaction ends, so that two redemptions take turns.
--
-- reads   none
-- writes  loyalty_accounts: locked
-- params  customer bigint
-- re-run  safe
insert into loyalty_accounts as a (customer_id) values (:customer)
on conflict (customer_id) do update set points = a.points
returning a.points
