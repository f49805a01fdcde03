-- happen_threshold_crossed: an order took somebody who is no member over the loyalty threshold (customer_facts.loyal_since).
--
-- reads   customer_facts, loyalty_memberships, sources
-- writes  external_events
-- params  now timestamptz, reach interval, percent int, tiers jsonb
-- re-run  safe: once for a customer
insert into external_events (source_id, event_key, customer_id, kind, at, known_at, order_id, detail, worked_out)
select
    f.source_id,
    'postlude:threshold_crossed:' || f.customer_id,
    f.customer_id,
    'threshold_crossed',
    f.loyal_since,
    :now,
    null,
    jsonb_build_object(
        'orders', f.frequency, 'amount', f.monetary, 'currency', s.currency, 'percent', cast(:percent as int),
        'tier', t.id, 'tier_name', t.name
    ),
    true
from customer_facts as f
inner join sources as s on f.source_id = s.source_id
-- the tier that the orders so far would give
left join lateral (
    select
        g.id,
        g.name
    from jsonb_to_recordset(:tiers) as g (id text, name text, spend numeric)
    where g.spend <= f.monetary
    order by g.spend desc
    limit 1
) as t on true
where
    f.loyal_since <= :now
    and f.loyal_since > cast(:now as timestamptz) - cast(:reach as interval)
    and not exists (
        select 1 from loyalty_memberships as m
        where m.customer_id = f.customer_id and m.joined_at <= :now and (m.left_at is null or m.left_at > :now)
    )
on conflict do nothing
