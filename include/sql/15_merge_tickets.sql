-- merge_tickets: questions to customer service; the last delivery says whether one is closed.
--
-- reads   staging_tickets, customer_identities
-- writes  tickets
-- params  source text
-- re-run  safe: an equal row changes nothing
insert into tickets as t (source_id, ticket_key, customer_id, source_customer_id, opened_at, closed_at, topic)
select distinct on (s.ticket_key)
    :source,
    s.ticket_key,
    i.customer_id,
    s.source_customer_id,
    s.opened_at,
    s.closed_at,
    s.topic
from staging_tickets as s
inner join customer_identities as i on i.source_id = :source and i.source_customer_id = s.source_customer_id
where cardinality(s.problems) = 0
order by s.ticket_key, s._file desc nulls last, s._row desc
on conflict (source_id, ticket_key) do update set
    customer_id = excluded.customer_id,
    source_customer_id = excluded.source_customer_id,
    opened_at = excluded.opened_at,
    closed_at = excluded.closed_at,
    topic = coalesce(excluded.topic, t.topic)
where
    (t.customer_id, t.opened_at, t.closed_at, t.topic)
    is distinct from (excluded.customer_id, excluded.opened_at, excluded.closed_at, coalesce(excluded.topic, t.topic))
