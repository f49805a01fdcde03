-- known_coupons: which of these codes are here already, and in which pool.
--
-- reads   coupons
-- params  codes text[]
-- re-run  safe: only reads
select lower(k.code) as code, k.pool
from coupons as k
where lower(k.code) = any(cast(:codes as text []))
