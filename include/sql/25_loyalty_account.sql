-- loyalty_account: one customer's points, tier and membership, what goes next, and how far it is to the next tier.
--
-- reads   loyalty_accounts, loyalty_memberships, loyalty_expiries, sources, customers
-- params  customer bigint, now timestamptz
-- re-run  safe: reads only
select
    c.customer_id,
    coalesce(a.points, 0) as points,
    a.tier,
    a.tier_since,
    coalesce(m.kind, 'no') as member,
    m.joined_at,
    m.renews_on,
    x.points as expiring,
    x.expires_at
from customers as c
left join loyalty_accounts as a on c.customer_id = a.customer_id
left join loyalty_memberships as m on c.customer_id = m.customer_id and m.joined_at <= :now and (m.left_at is null or m.left_at > :now)
left join lateral (
    select
        e.points,
        e.expires_at
    from loyalty_expiries as e
    where e.customer_id = c.customer_id and e.expires_at > :now
    order by e.expires_at
    limit 1
) as x on true
where c.customer_id = :customer
