-- candidates_of_event: orders whose event (placed, ..., refunded) lies in the campaign's reach.
-- Where a source knows no deliveries at all, the order date stands for them.
-- customer: this one only; null: everybody.
--
-- reads   orders, shipments, returns, sources
-- writes  candidates (temporary)
-- params  event text, now timestamptz, max_age interval, once_per text, customer bigint
-- re-run  safe: lives for one transaction
create temporary table candidates on commit drop as
with without_shipments as materialized (
    select s.source_id
    from sources as s
    where
        cast(:event as text) = 'delivered'
        and (cast(:customer as bigint) is null or s.source_id in (select o.source_id from orders as o where o.customer_id = cast(:customer as bigint)))
        and not case
            -- mostly one of the customer's, or of the newest, orders tells; else all are asked
            when exists (
                select 1
                from orders as o
                inner join shipments as p on o.order_id = p.order_id
                where o.customer_id = cast(:customer as bigint) and o.source_id = s.source_id
            ) then true
            when exists (
                select 1
                from (select o.order_id from orders as o where o.source_id = s.source_id order by o.placed_at desc limit 1000) as o
                inner join shipments as p on o.order_id = p.order_id
            ) then true
            else exists (select 1 from orders as o inner join shipments as p on o.order_id = p.order_id where o.source_id = s.source_id)
        end
),

-- the orders that may be in reach, each kind by its own index: of all orders there are they are few
near as materialized (
    select o.order_id
    from orders as o
    where
        cast(:customer as bigint) is null
        and cast(:event as text) = 'placed' and o.placed_at > cast(:now as timestamptz) - cast(:max_age as interval)
    union
    select o.order_id
    from orders as o
    where
        cast(:customer as bigint) is null
        and cast(:event as text) = 'paid' and o.paid_at > cast(:now as timestamptz) - cast(:max_age as interval)
    union
    select o.order_id
    from orders as o
    where
        cast(:customer as bigint) is null
        and cast(:event as text) = 'paid' and o.paid_at is null
        and o.placed_at > cast(:now as timestamptz) - cast(:max_age as interval)
    union
    select p.order_id
    from shipments as p
    where
        cast(:customer as bigint) is null
        and cast(:event as text) = 'shipped' and p.shipped_at > cast(:now as timestamptz) - cast(:max_age as interval)
    union
    select p.order_id
    from shipments as p
    where
        cast(:customer as bigint) is null
        and cast(:event as text) = 'delivered' and p.delivered_at > cast(:now as timestamptz) - cast(:max_age as interval)
    union
    select o.order_id
    from without_shipments as w
    inner join orders as o on w.source_id = o.source_id
    where
        cast(:customer as bigint) is null
        and cast(:event as text) = 'delivered' and o.placed_at > cast(:now as timestamptz) - cast(:max_age as interval)
    union
    select o.order_id
    from orders as o
    where
        cast(:customer as bigint) is null
        and cast(:event as text) = 'cancelled' and o.cancelled_at > cast(:now as timestamptz) - cast(:max_age as interval)
    union
    select r.order_id
    from returns as r
    where
        cast(:customer as bigint) is null
        and case cast(:event as text)
            when 'returned' then r.requested_at
            when 'return_received' then r.received_at
            when 'refunded' then r.refunded_at
        end > cast(:now as timestamptz) - cast(:max_age as interval)
    union
    select o.order_id
    from orders as o
    where o.customer_id = cast(:customer as bigint)
),

-- materialized: else the instant is worked out anew for every mention of it
happened as materialized (
    select
        o.order_id,
        o.customer_id,
        o.source_id,
        o.source_order_id,
        o.marketplace,
        case cast(:event as text)
            when 'placed' then o.placed_at
            when 'paid' then coalesce(o.paid_at, o.placed_at)
            when 'shipped' then (select min(p.shipped_at) from shipments as p where p.order_id = o.order_id)
            when 'delivered' then
                case
                    when o.source_id in (select w.source_id from without_shipments as w) then o.placed_at
                    -- delivered_at(), written out: a call for each order costs more than the rest
                    else (
                        select
                            case
                                when count(*) = count(p.delivered_at) filter (where p.delivered_at < :now) then max(p.delivered_at)
                            end
                        from shipments as p
                        where p.order_id = o.order_id
                    )
                end
            when 'cancelled' then o.cancelled_at
            when 'returned' then (select min(r.requested_at) from returns as r where r.order_id = o.order_id)
            when 'return_received' then (select min(r.received_at) from returns as r where r.order_id = o.order_id)
            when 'refunded' then (select min(r.refunded_at) from returns as r where r.order_id = o.order_id)
        end as anchor_at
    from near as n
    inner join orders as o on n.order_id = o.order_id
    where
        o.customer_id is not null
        and o.placed_at < :now
        -- an order delivered within reach was placed at most a year before
        and o.placed_at > cast(:now as timestamptz) - cast(:max_age as interval) - interval '365 days'
)

select
    h.customer_id,
    h.order_id,
    case cast(:once_per as text) when 'customer' then 'once' else 'order:' || h.source_id || ':' || h.source_order_id end as anchor_key,
    h.anchor_at,
    h.anchor_at as watch_from,
    h.source_id,
    -- it counts, but the person is the marketplace's customer there
    case when h.marketplace is not null then 'marketplace' end as objection
from happened as h
where h.anchor_at <= :now and h.anchor_at > cast(:now as timestamptz) - cast(:max_age as interval)
