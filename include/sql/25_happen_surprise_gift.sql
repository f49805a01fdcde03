-- happen_surprise_gift: the day of a drawn gift has come. Whether the person still is in good standing was settled just before.
--
-- reads   gift_draws, customers, sources
-- writes  external_events
-- params  now timestamptz, reach interval
-- re-run  safe: named by month and customer
insert into external_events (source_id, event_key, customer_id, kind, at, known_at, order_id, detail, worked_out)
select
    c.source_id,
    'postlude:surprise_gift:' || to_char(g.month, 'YYYY-MM') || ':' || g.customer_id,
    g.customer_id,
    'surprise_gift',
    g.at,
    :now,
    null,
    jsonb_build_object('gift', g.gift, 'gives', g.kind, 'worth', g.worth, 'currency', s.currency, 'month', to_char(g.month, 'YYYY-MM')),
    true
from gift_draws as g
inner join customers as c on g.customer_id = c.customer_id
inner join sources as s on c.source_id = s.source_id
where g.state = 'given' and g.at <= :now and g.at > cast(:now as timestamptz) - cast(:reach as interval)
on conflict do nothing
