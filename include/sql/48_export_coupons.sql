-- export_coupons: codes of a pool with their state, for the shop that has to accept them. Message ids, nobody's data.
--
-- reads   coupons
-- params  pool text, state text
-- re-run  safe: only reads
select k.code, k.state, k.valid_until, k.reserved_at, k.bound_at, k.message_id
from coupons as k
where k.pool = :pool and k.code is not null and (cast(:state as text) is null or k.state = :state)
order by k.coupon_id
