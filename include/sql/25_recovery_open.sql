-- recovery_open: what went wrong for a customer becomes a case with a named owner, once for each fact. A coupon may be given for it
-- only so many times a year.
--
-- reads   ratings, orders, shipments, returns, external_events, sources
-- writes  recoveries
-- params  now timestamptz, reach interval, low int, days_late int, refund_days int, most int, owners jsonb
-- re-run  safe: named by the fact
insert into recoveries (customer_id, order_id, cause, fact, at, opened_at, score, owner, owner_email, make_good)
with newest as (
    -- an answer changed by a later click counts as it stands
    select distinct on (r.customer_id, r.order_id, r.campaign_id, r.about) r.*
    from ratings as r
    where r.at <= :now and r.known_at <= :now and r.at > cast(:now as timestamptz) - cast(:reach as interval) and r.customer_id is not null
    order by r.customer_id, r.order_id, r.campaign_id, r.about, r.at desc, r.score
),

telling as materialized (
    -- where a source tells no deliveries, nothing is late
    select
        t.source_id,
        t.time_zone
    from sources as t
    where tells_deliveries(t.source_id, :now)
),

facts as (
    select
        n.customer_id,
        n.order_id,
        'low_score' as cause,
        'low_score:' || n.rating as fact,
        n.at,
        n.score
    from newest as n
    where n.score <= case n.scale when 5 then cast(:low as int) else 6 end
    union all
    select
        o.customer_id,
        o.order_id,
        'late',
        'late:' || o.source_id || ':' || o.source_order_id,
        local_instant(o.promised_on + cast(:days_late as int) + 1 + time '00:00', s.time_zone),
        null
    from orders as o
    inner join telling as s on o.source_id = s.source_id
    where
        -- cheap, so that few are looked at closer
        o.promised_on <= cast(cast(:now as timestamptz) at time zone 'UTC' as date) - cast(:days_late as int)
        and o.customer_id is not null
        and o.marketplace is null
        and o.paid_at is not null
        and o.placed_at < :now
        and o.placed_at > cast(:now as timestamptz) - cast(:reach as interval) - interval '60 days'
        and (o.cancelled_at is null or o.cancelled_at > :now)
        and local_instant(o.promised_on + cast(:days_late as int) + 1 + time '00:00', s.time_zone) <= :now
        and local_instant(o.promised_on + cast(:days_late as int) + 1 + time '00:00', s.time_zone)
        > cast(:now as timestamptz) - cast(:reach as interval)
        and coalesce(delivered_at(o.order_id, :now), 'infinity')
        >= local_instant(o.promised_on + cast(:days_late as int) + 1 + time '00:00', s.time_zone)
    union all
    select
        x.customer_id,
        x.order_id,
        'damaged',
        'damaged:' || x.source_id || ':' || x.event_key,
        x.at,
        null
    from external_events as x
    where x.kind = 'damaged' and x.at <= :now and x.known_at <= :now and x.at > cast(:now as timestamptz) - cast(:reach as interval)
    union all
    select
        o.customer_id,
        o.order_id,
        'refund_late',
        'refund_late:' || o.source_id || ':' || o.source_order_id || ':' || q.return_key,
        q.received_at + make_interval(days => :refund_days),
        null
    from returns as q
    inner join orders as o on q.order_id = o.order_id
    where
        q.received_at <= cast(:now as timestamptz) - make_interval(days => :refund_days)
        and q.received_at > cast(:now as timestamptz) - make_interval(days => :refund_days) - cast(:reach as interval)
        and (q.refunded_at is null or q.refunded_at > :now)
        and (q.closed_at is null or q.closed_at > :now)
        and o.customer_id is not null
        and o.marketplace is null
),

fresh as (
    select
        f.*,
        row_number() over (partition by f.customer_id order by f.at, f.fact) as turn
    from facts as f
    where not exists (select 1 from recoveries as r where r.fact = f.fact)
)

select
    f.customer_id,
    f.order_id,
    f.cause,
    f.fact,
    f.at,
    :now,
    cast(f.score as smallint),
    w.name,
    w.email,
    f.turn + (
        select count(*) from recoveries as r
        where r.customer_id = f.customer_id and r.make_good and r.opened_at > cast(:now as timestamptz) - interval '365 days'
    ) <= cast(:most as int)
from fresh as f
inner join jsonb_to_recordset(:owners) as w (cause text, name text, email text) on f.cause = w.cause
on conflict (fact) do nothing
