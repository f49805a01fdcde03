-- import_coupons: codes the shop made; one that is known already, in any spelling of case, is not stored again.
--
-- writes  coupons
-- params  pool text, rows jsonb, now timestamptz
-- re-run  safe: a code is stored once
insert into coupons (pool, code, state, valid_until, created_at)
select :pool, r.code, 'free', r.valid_until, :now
from jsonb_to_recordset(:rows) as r (code text, valid_until timestamptz)
on conflict do nothing
returning code
