-- declare_pools: include/coupons.yml as it stands. A pool that is no longer named keeps its codes and loses its budget.
--
-- writes  coupon_pools
-- params  pools jsonb, now timestamptz
-- re-run  safe: the same file changes nothing
insert into coupon_pools (pool, kind, worth, most_codes, most_value, per, low_at, least_days, updated_at)
select p.pool, p.kind, p.worth, p.most_codes, p.most_value, p.per, p.low_at, p.least_days, :now
from jsonb_to_recordset(:pools) as p (
    pool text, kind text, worth numeric, most_codes int, most_value numeric, per text, low_at int, least_days int
)
on conflict (pool) do update set
    kind = excluded.kind, worth = excluded.worth, most_codes = excluded.most_codes, most_value = excluded.most_value, per = excluded.per,
    low_at = excluded.low_at, least_days = excluded.least_days, updated_at = excluded.updated_at
where (
    coupon_pools.kind, coupon_pools.worth, coupon_pools.most_codes, coupon_pools.most_value, coupon_pools.per, coupon_pools.low_at,
    coupon_pools.least_days
) is distinct from (
    excluded.kind, excluded.worth, excluded.most_codes, excluded.most_value, excluded.per, excluded.low_at, excluded.least_days
)
