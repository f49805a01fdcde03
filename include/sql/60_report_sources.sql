-- report_sources: what each source delivered, what was refused, how far it is complete.
--
-- reads   sources, customers, orders, order_lines, quarantine
-- params  now timestamptz
-- re-run  safe: only reads
select
    s.source_id as source,
    (select count(*) from customers as c where c.source_id = s.source_id and c.merged_into is null) as customers,
    (select count(*) from orders as o where o.source_id = s.source_id) as orders,
    (select count(*) from order_lines as l inner join orders as o on l.order_id = o.order_id where o.source_id = s.source_id) as lines,
    (select count(*) from quarantine as q where q.source_id = s.source_id and q.released_at is null) as quarantined,
    s.complete_until,
    round(cast(extract(epoch from cast(:now as timestamptz) - s.complete_until) / 3600 as numeric), 1) as hours_behind
from sources as s
order by s.source_id
