-- trial_referral: a code to show where the customer has none yet, for a trial that is rolled back.
--
-- reads   nothing
-- writes  referral_codes
-- params  customer bigint, now timestamptz
-- re-run  safe: rolled back by the caller
insert into referral_codes (customer_id, code, made_at)
values (:customer, 'TRIAL00000', :now)
on conflict do nothing
