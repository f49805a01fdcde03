-- happen_next_order_expected: a week before the next order is to be expected from the customer's own median gap (three orders), else
-- twenty days after the last delivery.
--
-- reads   customer_facts, orders, shipments, sources
-- writes  external_events
-- params  now timestamptz, reach interval
-- re-run  safe: named by the last order
insert into external_events (source_id, event_key, customer_id, kind, at, known_at, order_id, detail, worked_out)
with expected as (
    select
        f.customer_id,
        f.last_order_id,
        f.median_gap_days as gap,
        f.last_order_at + make_interval(secs => cast(86400 * f.median_gap_days as double precision)) as next_at,
        f.last_order_at + make_interval(secs => cast(86400 * (f.median_gap_days - 7) as double precision)) as at
    from customer_facts as f
    where f.frequency >= 3 and f.median_gap_days >= 10
    union all
    select
        f.customer_id,
        f.last_order_id,
        null,
        null,
        d.delivered_at + interval '20 days'
    from customer_facts as f
    cross join lateral deliveries_of(f.last_order_id, :now) as d
    where
        not (f.frequency >= 3 and coalesce(f.median_gap_days, 0) >= 10)
        -- delivered within reach means ordered not long before
        and f.last_order_at > cast(:now as timestamptz) - cast(:reach as interval) - interval '80 days'
        and f.last_order_at <= cast(:now as timestamptz) - interval '20 days'
)

select
    o.source_id,
    'postlude:next_order_expected:' || o.source_order_id,
    e.customer_id,
    'next_order_expected',
    e.at,
    :now,
    o.order_id,
    jsonb_build_object(
        'expected_on', cast(e.next_at at time zone s.time_zone as date), 'gap_days', round(e.gap),
        'gap_of', case when e.gap is null then 'delivery' else 'own' end
    ),
    true
from expected as e
inner join orders as o on e.last_order_id = o.order_id
inner join sources as s on o.source_id = s.source_id
where e.at <= :now and e.at > cast(:now as timestamptz) - cast(:reach as interval)
on conflict do nothing
