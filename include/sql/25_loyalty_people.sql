-- loyalty_people: for each message, its customer's membership, points and what of them goes next.
--
-- reads   messages, loyalty_memberships, loyalty_accounts, loyalty_expiries
-- params  ids uuid[], now timestamptz
-- re-run  safe: reads only
select
    m.message_id,
    l.kind as member,
    l.renews_on,
    coalesce(a.points, 0) as points,
    a.tier,
    coalesce(a.spent, 0) as spent,
    x.points as expiring,
    x.expires_at
from messages as m
inner join loyalty_memberships as l on m.customer_id = l.customer_id and l.joined_at <= :now and (l.left_at is null or l.left_at > :now)
left join loyalty_accounts as a on m.customer_id = a.customer_id
left join lateral (
    select
        e.points,
        e.expires_at
    from loyalty_expiries as e
    where e.customer_id = m.customer_id and e.expires_at > :now
    order by e.expires_at
    limit 1
) as x on true
where m.message_id = any(cast(:ids as uuid []))
