-- loyalty_book: what every order of a member should have brought by now, less what was booked for it already. An order earns once, by
-- the rate of the tier on that day; what was returned and refunded, or cancelled later, is taken back by the same rate.
--
-- reads   loyalty_memberships, loyalty_accounts, orders, order_lines, returns, shipments, loyalty_ledger
-- writes  loyalty_ledger
-- params  now timestamptz, earn_on text, tiers jsonb, life interval
-- re-run  safe: the difference is nothing then
insert into loyalty_ledger (customer_id, kind, points, at, known_at, order_id, rate, expires_at, reason, by, ref)
with members as (
    select
        m.customer_id,
        min(m.joined_at) as joined_at
    from loyalty_memberships as m
    where m.joined_at <= :now
    group by m.customer_id
),

tells_payment as (
    select s.source_id
    from sources as s
    where exists (select 1 from orders as o where o.source_id = s.source_id and o.paid_at is not null)
),

earning as (
    select
        o.order_id,
        o.source_id,
        o.source_order_id,
        o.customer_id,
        o.cancelled_at is not null and o.cancelled_at <= :now as cancelled,
        o.counted_amount,
        case cast(:earn_on as text)
            when 'delivered' then delivered_at(o.order_id, :now)
            else coalesce(o.paid_at, case when o.source_id not in (select t.source_id from tells_payment as t) then o.placed_at end)
        end as at
    from members as m
    inner join orders as o on m.customer_id = o.customer_id
    where
        o.counted_at is not null
        and o.placed_at < :now
        and o.placed_at > m.joined_at - interval '60 days'
        -- returns of older orders are the shop's goodwill
        and o.placed_at > cast(:now as timestamptz) - interval '500 days'
        and o.marketplace is null
),

booked as (
    select
        l.order_id,
        sum(l.points) as points,
        count(*) as entries,
        min(l.rate) as rate
    from loyalty_ledger as l
    where l.order_id in (select e.order_id from earning as e)
    group by l.order_id
),

due as (
    select
        e.*,
        coalesce(b.entries, 0) as entries,
        coalesce(b.points, 0) as booked,
        coalesce(b.rate, t.rate) as rate,
        coalesce(r.refunded, 0) as refunded,
        case
            when e.cancelled then 0
            else floor(greatest(e.counted_amount - coalesce(r.refunded, 0), 0) * coalesce(b.rate, t.rate))
        end as points
    from earning as e
    left join booked as b on e.order_id = b.order_id
    left join loyalty_accounts as a on e.customer_id = a.customer_id
    cross join lateral (
        select g.rate
        from jsonb_to_recordset(:tiers) as g (id text, rate numeric, place int)
        where g.id = a.tier or g.place = 0
        order by g.place desc
        limit 1
    ) as t
    cross join lateral (select refunded_of(e.order_id, e.counted_amount, :now) as refunded) as r
    where
        -- earned while a member; what was booked once is kept right for ever
        b.entries > 0
        or (
            e.at <= :now
            and exists (
                select 1 from loyalty_memberships as m
                where m.customer_id = e.customer_id and m.joined_at <= e.at and (m.left_at is null or m.left_at > e.at)
            )
        )
)

select
    d.customer_id,
    case when d.points > d.booked then 'earned' else 'taken_back' end,
    cast(d.points - d.booked as int),
    case when d.entries = 0 then d.at else cast(:now as timestamptz) end,
    :now,
    d.order_id,
    d.rate,
    case when d.points > d.booked then coalesce(d.at, cast(:now as timestamptz)) + cast(:life as interval) end,
    case
        when d.points > d.booked and d.entries = 0 then 'order ' || cast(:earn_on as text)
        when d.cancelled then 'order cancelled'
        when d.refunded > 0 and d.points < d.booked then 'order returned'
        else 'order corrected'
    end,
    'postlude',
    'order:' || d.source_id || ':' || d.source_order_id || ':' || d.entries
from due as d
where d.points <> d.booked
on conflict (ref) do nothing
