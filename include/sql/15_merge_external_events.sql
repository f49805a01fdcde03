-- merge_external_events: what other systems tell about customers, each event once; an order it names becomes its order.
--
-- reads   staging_external_events, customer_identities, orders
-- writes  external_events
-- params  source text, now timestamptz
-- re-run  safe: an event told again changes nothing
insert into external_events (source_id, event_key, customer_id, kind, at, known_at, order_id, detail)
select distinct on (s.event_key)
    :source,
    s.event_key,
    i.customer_id,
    s.kind,
    s.at,
    :now,
    o.order_id,
    coalesce(cast(s.detail as jsonb), '{}')
from staging_external_events as s
inner join customer_identities as i on i.source_id = :source and i.source_customer_id = s.source_customer_id
-- it may only be an order of the same person
left join orders as o
    on o.source_id = :source
    and o.source_order_id = coalesce(s.source_order_id, cast(s.detail as jsonb) ->> 'order_number')
    and o.customer_id = i.customer_id
where cardinality(s.problems) = 0
order by s.event_key, s._file desc nulls last, s._row desc
on conflict (source_id, event_key) do nothing
