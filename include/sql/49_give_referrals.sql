-- give_referrals: one code per customer for ever; a code somebody else has already is left out and made anew by the caller.
--
-- writes  referral_codes
-- params  rows jsonb, now timestamptz
-- re-run  safe: who has a code keeps it
insert into referral_codes (customer_id, code, made_at)
select r.customer_id, r.code, :now
from jsonb_to_recordset(:rows) as r (customer_id bigint, code text)
on conflict do nothing
returning customer_id
