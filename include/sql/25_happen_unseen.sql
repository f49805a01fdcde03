-- happen_unseen: sixty days without a visit, where the shop tells visits; named by the last one.
--
-- reads   external_events
-- writes  external_events
-- params  now timestamptz, reach interval
-- re-run  safe: named by the last visit
insert into external_events (source_id, event_key, customer_id, kind, at, known_at, order_id, detail, worked_out)
select
    v.source_id,
    'postlude:unseen:' || v.customer_id || ':' || cast(v.seen_at at time zone 'UTC' as date),
    v.customer_id,
    'unseen',
    v.seen_at + interval '60 days',
    :now,
    null,
    jsonb_build_object('last_seen_on', cast(v.seen_at at time zone 'UTC' as date)),
    true
from (
    select distinct on (x.customer_id)
        x.customer_id,
        x.source_id,
        x.at as seen_at
    from external_events as x
    where x.kind = 'visited' and x.at <= :now and x.known_at <= :now
    order by x.customer_id, x.at desc
) as v
where
    v.seen_at <= cast(:now as timestamptz) - interval '60 days'
    and v.seen_at > cast(:now as timestamptz) - interval '60 days' - cast(:reach as interval)
on conflict do nothing
