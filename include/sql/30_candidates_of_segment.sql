-- candidates_of_segment: present members of a segment who entered it within the campaign's reach.
-- customer: this one only; null: everybody.
--
-- reads   segment_memberships, customer_features, customers, orders
-- writes  candidates (temporary)
-- params  segment text, now timestamptz, max_age interval, once_per text, customer bigint
-- re-run  safe: lives for one transaction
create temporary table candidates on commit drop as
select
    m.customer_id,
    cast(null as bigint) as order_id,
    case cast(:once_per as text)
        when 'customer' then 'once'
        -- one stay in the segment is named by the order that came before it
        else m.segment_id || ':' || coalesce(o.source_id || ':' || o.source_order_id, m.entered_at::text)
    end as anchor_key,
    m.entered_at as anchor_at,
    coalesce(f.last_order_at, m.entered_at) as watch_from,
    c.source_id,
    cast(null as text) as objection
from segment_memberships as m
inner join customers as c on m.customer_id = c.customer_id
left join customer_features as f on m.customer_id = f.customer_id
left join orders as o on f.last_order_id = o.order_id
where
    m.segment_id = :segment
    and (cast(:customer as bigint) is null or m.customer_id = cast(:customer as bigint))
    and m.left_at is null
    and m.entered_at <= :now
    and m.entered_at > cast(:now as timestamptz) - cast(:max_age as interval)
