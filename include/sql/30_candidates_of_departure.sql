-- candidates_of_departure: customers who left a segment within the campaign's reach and have not come back to it.
-- customer: this one only; null: everybody.
--
-- reads   segment_memberships, customer_features, customers
-- writes  candidates (temporary)
-- params  segment text, now timestamptz, max_age interval, once_per text, customer bigint
-- re-run  safe: lives for one transaction
create temporary table candidates on commit drop as
select
    m.customer_id,
    cast(null as bigint) as order_id,
    -- one stay is named by when it began: that does not change any more once it is over
    case cast(:once_per as text) when 'customer' then 'once' else 'left:' || m.segment_id || ':' || m.entered_at::text end as anchor_key,
    m.left_at as anchor_at,
    -- an order after the one the departure rests on, though before this run saw the departure, is news already
    least(m.left_at, coalesce(f.last_order_at, m.left_at)) as watch_from,
    c.source_id,
    cast(null as text) as objection
from segment_memberships as m
inner join customers as c on m.customer_id = c.customer_id
left join customer_features as f on m.customer_id = f.customer_id
where
    m.segment_id = :segment
    and (cast(:customer as bigint) is null or m.customer_id = cast(:customer as bigint))
    and m.left_at <= :now
    and m.left_at > cast(:now as timestamptz) - cast(:max_age as interval)
    and not exists (
        select 1 from segment_memberships as n
        where n.segment_id = m.segment_id and n.customer_id = m.customer_id and n.left_at is null
    )
