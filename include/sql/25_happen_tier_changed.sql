-- happen_tier_changed: a member came into a higher or a lower tier. Joining is no change.
--
-- reads   loyalty_tier_changes, loyalty_accounts, customers
-- writes  external_events
-- params  now timestamptz, reach interval, tiers jsonb
-- re-run  safe: named by the change
insert into external_events (source_id, event_key, customer_id, kind, at, known_at, order_id, detail, worked_out)
select
    c.source_id,
    'postlude:tier:' || t.customer_id || ':' || extract(epoch from t.at),
    t.customer_id,
    case when t.up then 'tier_up' else 'tier_down' end,
    t.at,
    :now,
    null,
    jsonb_build_object(
        'tier', t.tier, 'tier_name', coalesce(g.name, t.tier), 'was', coalesce(w.name, t.was), 'perks', coalesce(g.perks, '[]'),
        'points', coalesce(a.points, 0), 'next_tier', n.name, 'next_at', n.spend
    ),
    true
from loyalty_tier_changes as t
inner join customers as c on t.customer_id = c.customer_id
left join loyalty_accounts as a on t.customer_id = a.customer_id
left join jsonb_to_recordset(:tiers) as g (id text, name text, spend numeric, perks jsonb) on t.tier = g.id
left join jsonb_to_recordset(:tiers) as w (id text, name text) on t.was = w.id
left join lateral (
    select
        x.name,
        x.spend
    from jsonb_to_recordset(:tiers) as x (name text, spend numeric)
    where x.spend > g.spend
    order by x.spend
    limit 1
) as n on true
where
    t.was is not null
    and t.tier is not null
    and t.at <= :now
    and t.at > cast(:now as timestamptz) - cast(:reach as interval)
on conflict do nothing
