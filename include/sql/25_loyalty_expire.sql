-- loyalty_expire: points whose time is up go, as far as they were not spent: what was spent came from those that go first.
--
-- reads   loyalty_ledger
-- writes  loyalty_ledger
-- params  now timestamptz
-- re-run  safe: then nothing is left of them
insert into loyalty_ledger (customer_id, kind, points, at, known_at, reason, by, ref)
select
    l.customer_id,
    'expired',
    -cast(l.gone + l.spent as int),
    l.last_at,
    :now,
    'time is up',
    'postlude',
    'expired:' || l.customer_id || ':' || l.gone
from (
    select
        e.customer_id,
        coalesce(sum(e.points) filter (where e.points > 0 and e.expires_at <= :now), 0) as gone,
        coalesce(sum(e.points) filter (where e.points < 0), 0) as spent,
        max(e.expires_at) filter (where e.expires_at <= :now) as last_at
    from loyalty_ledger as e
    group by e.customer_id
) as l
where l.gone + l.spent > 0
on conflict (ref) do nothing
