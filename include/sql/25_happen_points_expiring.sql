-- happen_points_expiring: points of a member go in a month; what goes until then together is told once.
--
-- reads   loyalty_expiries, loyalty_accounts, loyalty_memberships, customers, sources
-- writes  external_events
-- params  now timestamptz, reach interval, worth numeric
-- re-run  safe: named by customer and month of the expiry
insert into external_events (source_id, event_key, customer_id, kind, at, known_at, order_id, detail, worked_out)
select distinct on (x.customer_id, date_trunc('month', x.expires_at))
    c.source_id,
    'postlude:points_expiring:' || x.customer_id || ':' || to_char(x.expires_at, 'YYYY-MM'),
    x.customer_id,
    'points_expiring',
    x.expires_at - interval '30 days',
    :now,
    null,
    jsonb_build_object(
        'points', x.points, 'expires_at', x.expires_at, 'expires_on', cast(x.expires_at at time zone s.time_zone as date),
        'balance', a.points, 'worth', round(x.points * cast(:worth as numeric), 2), 'currency', s.currency
    ),
    true
from loyalty_expiries as x
inner join loyalty_accounts as a on x.customer_id = a.customer_id
inner join customers as c on x.customer_id = c.customer_id
inner join sources as s on c.source_id = s.source_id
where
    x.expires_at > :now
    and x.expires_at - interval '30 days' <= :now
    and x.expires_at - interval '30 days' > cast(:now as timestamptz) - cast(:reach as interval)
    and exists (select 1 from loyalty_memberships as m where m.customer_id = x.customer_id and m.left_at is null)
order by x.customer_id, date_trunc('month', x.expires_at), x.expires_at
on conflict do nothing
