-- loyalty_renew: a payment for the paid club, told around the renewal, moves it by one period.
--
-- reads   external_events, customers, sources
-- writes  loyalty_memberships: renews_on
-- params  now timestamptz, period interval, grace interval
-- re-run  safe: the payment lies outside the next renewal's days
update loyalty_memberships as m
set renews_on = cast(m.renews_on + cast(:period as interval) as date)
from customers as c
inner join sources as s on c.source_id = s.source_id
where
    m.customer_id = c.customer_id
    and m.left_at is null
    and m.renews_on is not null
    and exists (
        select 1 from external_events as x
        where
            x.customer_id = m.customer_id
            and x.kind = 'payment_succeeded'
            and x.detail ->> 'what' = 'club'
            and x.at <= :now
            and x.known_at <= :now
            and x.at > m.joined_at
            and cast(x.at at time zone s.time_zone as date)
            between m.renews_on - 30 and cast(m.renews_on + cast(:grace as interval) as date)
    )
