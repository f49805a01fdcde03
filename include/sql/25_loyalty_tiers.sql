-- loyalty_tiers: every member's tier by what was spent in the window; up at once, down only when the tier was kept long enough.
--
-- reads   loyalty_memberships, orders, returns, order_lines
-- writes  loyalty_accounts: tier; loyalty_tier_changes
-- params  now timestamptz, spent_in interval, keep interval, tiers jsonb, club_tier text, run_id text
-- re-run  safe: an equal tier changes nothing
with tiers as (
    select
        t.id,
        t.place,
        t.spend
    from jsonb_to_recordset(:tiers) as t (id text, place int, spend numeric)
),

people as (
    select
        a.customer_id,
        a.tier,
        a.tier_since,
        a.spent as spent_before,
        m.kind
    from loyalty_accounts as a
    left join loyalty_memberships as m
        on a.customer_id = m.customer_id and m.joined_at <= :now and (m.left_at is null or m.left_at > :now)
    union all
    select
        m.customer_id,
        null,
        null,
        0,
        m.kind
    from loyalty_memberships as m
    where
        m.joined_at <= :now
        and (m.left_at is null or m.left_at > :now)
        and not exists (select 1 from loyalty_accounts as a where a.customer_id = m.customer_id)
),

spent as (
    select
        p.customer_id,
        sum(greatest(o.counted_amount - coalesce(r.refunded, 0), 0)) as amount
    from people as p
    inner join orders as o on p.customer_id = o.customer_id
    cross join lateral (select refunded_of(o.order_id, o.counted_amount, :now) as refunded) as r
    where
        o.counted_at < :now
        and o.counted_at > cast(:now as timestamptz) - cast(:spent_in as interval)
        and (o.cancelled_at is null or o.cancelled_at > :now)
        and o.marketplace is null
    group by p.customer_id
),

reached as (
    select
        p.*,
        old.place as old_place,
        coalesce(s.amount, 0) as spent,
        case
            when p.kind is null then null
            else greatest(
                (select max(t.place) from tiers as t where t.spend <= coalesce(s.amount, 0)),
                case when p.kind = 'paid' then (select t.place from tiers as t where t.id = :club_tier) end
            )
        end as place
    from people as p
    left join spent as s on p.customer_id = s.customer_id
    left join tiers as old on p.tier = old.id
),

judged as (
    select
        r.*,
        t.id as new_tier,
        r.tier is distinct from t.id
        and not coalesce(r.place < r.old_place and r.tier_since > cast(:now as timestamptz) - cast(:keep as interval), false) as moves
    from reached as r
    left join tiers as t on r.place = t.place
),

changed as (
    select
        j.customer_id,
        j.tier as was,
        j.new_tier as tier,
        j.place is not null and (j.old_place is null or j.place > j.old_place) as up
    from judged as j
    where j.moves
),

stored as (
    insert into loyalty_accounts as a (customer_id, tier, tier_since, spent)
    select
        j.customer_id,
        case when j.moves then j.new_tier else j.tier end,
        case when not j.moves then j.tier_since when j.new_tier is not null then cast(:now as timestamptz) end,
        j.spent
    from judged as j
    where j.moves or j.spent <> j.spent_before
    on conflict (customer_id) do update set tier = excluded.tier, tier_since = excluded.tier_since, spent = excluded.spent
    returning a.customer_id
),

noted as (
    insert into loyalty_tier_changes (customer_id, at, was, tier, up, run_id)
    select
        c.customer_id,
        :now,
        c.was,
        c.tier,
        c.up,
        :run_id
    from changed as c
    on conflict do nothing
    returning was, tier, up
)

select
    count(*) filter (where n.up and n.was is not null) as up,
    count(*) filter (where not n.up and n.tier is not null) as down,
    (select count(*) from stored) as changed
from noted as n
