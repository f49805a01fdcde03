-- void_coupons: withdrawn codes. A message that only planned one is given another; one on its way keeps it.
--
-- reads   messages
-- writes  coupons: free, reserved, bound -> void; messages: waiting ones forget the code
-- params  pool text, codes text[], everything boolean, now timestamptz
-- re-run  safe: a void code stays void
with withdrawn as (
    update coupons as k
    set
        state = 'void',
        ended_at = :now,
        message_id = case when m.state in ('sent', 'unknown') then k.message_id end
    from coupons as was
    left join messages as m on was.message_id = m.message_id
    where
        k.coupon_id = was.coupon_id
        and was.pool = :pool
        and (cast(:everything as boolean) and was.state in ('free', 'reserved') or lower(was.code) = any(cast(:codes as text [])))
        and was.state in ('free', 'reserved', 'bound')
        and coalesce(m.state, '') <> 'sending'
    returning k.code, was.state, was.message_id
),

forgotten as (
    update messages as m
    set coupon_code = null
    from withdrawn as w
    where m.message_id = w.message_id and m.state in ('scheduled', 'held') and m.coupon_code is not null
)

select w.code, w.state
from withdrawn as w
