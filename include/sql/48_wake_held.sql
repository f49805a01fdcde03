-- wake_held: messages that waited for a coupon go on once they hold one, and expire with this reason when none came in time.
--
-- reads   coupons
-- writes  messages: held (coupon_exhausted) -> scheduled, expired
-- params  now timestamptz
-- re-run  safe: a woken message is no longer held
with looked_at as (
    update messages as m
    set
        state = case when m.expires_at <= :now then 'expired' else 'scheduled' end,
        reason = case when m.expires_at <= :now then 'coupon_exhausted' end,
        finalized_at = case when m.expires_at <= :now then cast(:now as timestamptz) end
    where
        m.state = 'held'
        and m.reason = 'coupon_exhausted'
        and (
            m.expires_at <= :now
            or exists (select 1 from coupons as k where k.message_id = m.message_id and k.state in ('reserved', 'bound'))
        )
    returning m.state
)

select
    count(*) filter (where l.state = 'scheduled') as woken,
    count(*) filter (where l.state = 'expired') as expired
from looked_at as l
