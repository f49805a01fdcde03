-- happen_renewal_due: two weeks before a subscription or the paid club is to be renewed.
--
-- reads   customers, loyalty_memberships, sources
-- writes  external_events
-- params  now timestamptz, reach interval, price numeric, url text
-- re-run  safe: named by the renewal's date
insert into external_events (source_id, event_key, customer_id, kind, at, known_at, order_id, detail, worked_out)
with renewing as (
    select
        c.customer_id,
        c.source_id,
        'subscription' as what,
        c.renews_on,
        cast(null as numeric) as amount
    from customers as c
    where c.renews_on is not null and c.merged_into is null
    union all
    select
        m.customer_id,
        c.source_id,
        'club',
        m.renews_on,
        cast(:price as numeric)
    from loyalty_memberships as m
    inner join customers as c on m.customer_id = c.customer_id
    where m.left_at is null and m.renews_on is not null
),

due as (
    select
        r.*,
        s.currency,
        local_instant(r.renews_on - 14 + time '00:00', s.time_zone) as at
    from renewing as r
    inner join sources as s on r.source_id = s.source_id
)

select
    d.source_id,
    'postlude:renewal_due:' || d.what || ':' || d.customer_id || ':' || d.renews_on,
    d.customer_id,
    'renewal_due',
    d.at,
    :now,
    null,
    jsonb_build_object('what', d.what, 'renews_on', d.renews_on, 'amount', d.amount, 'currency', d.currency, 'url', cast(:url as text)),
    true
from due as d
where d.at <= :now and d.at > cast(:now as timestamptz) - cast(:reach as interval)
on conflict do nothing
