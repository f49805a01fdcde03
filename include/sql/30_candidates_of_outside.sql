-- candidates_of_outside: customers about whom another system told an event of this kind within the campaign's reach.
-- customer: this one only; null: everybody.
--
-- reads   external_events, customers
-- writes  candidates (temporary)
-- params  kind text, now timestamptz, max_age interval, once_per text, customer bigint
-- re-run  safe: lives for one transaction
create temporary table candidates on commit drop as
select
    x.customer_id,
    x.order_id,
    case cast(:once_per as text) when 'customer' then 'once' else 'external:' || x.source_id || ':' || x.event_key end as anchor_key,
    x.at as anchor_at,
    x.at as watch_from,
    c.source_id,
    cast(null as text) as objection
from external_events as x
inner join customers as c on x.customer_id = c.customer_id
where
    x.kind = :kind
    and (cast(:customer as bigint) is null or x.customer_id = cast(:customer as bigint))
    and x.at <= :now
    and x.known_at <= :now
    and x.at > cast(:now as timestamptz) - cast(:max_age as interval)
