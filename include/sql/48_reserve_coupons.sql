-- reserve_coupons: a code for every waiting message of a coupon step, as far as stock and budget go. `campaign` plans a whole
-- campaign, `ids` looks at messages this transaction has locked; one row per pool that was asked.
--
-- reads   messages, enrolments, campaign_versions
-- writes  coupons: free -> reserved, run out -> void; coupon_pools
-- params  campaign text, ids uuid[], now timestamptz
-- re-run  safe: a message that holds a code gets no second one
select r.pool, r.wanted, r.reserved
from reserve_coupons(:campaign, cast(:ids as uuid []), :now) as r
