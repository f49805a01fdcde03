-- happen_delivery_delayed: promised, and a day later not there; or the carrier tells an exception. Told anew only with a new ETA.
--
-- reads   orders, shipments, external_events, sources
-- writes  external_events
-- params  now timestamptz, reach interval
-- re-run  safe: named by order and ETA
insert into external_events (source_id, event_key, customer_id, kind, at, known_at, order_id, detail, worked_out)
with telling as materialized (
    -- where a source tells no deliveries, nothing is late
    select
        t.source_id,
        t.time_zone
    from sources as t
    where tells_deliveries(t.source_id, :now)
),

waiting as (
    select
        o.order_id,
        o.source_id,
        o.source_order_id,
        o.customer_id,
        o.promised_on,
        s.time_zone,
        local_instant(o.promised_on + 2 + time '00:00', s.time_zone) as late_at,
        p.eta,
        p.carrier,
        p.tracking_url
    from orders as o
    inner join telling as s on o.source_id = s.source_id
    left join lateral (
        select
            max(h.eta) as eta,
            (array_agg(h.carrier order by h.eta desc nulls last, h.shipment_key) filter (where h.delivered_at is null))[1] as carrier,
            (array_agg(h.tracking_url order by h.eta desc nulls last, h.shipment_key) filter (where h.delivered_at is null))[1] as tracking_url
        from shipments as h
        where h.order_id = o.order_id
    ) as p on true
    where
        o.placed_at > cast(:now as timestamptz) - cast(:reach as interval) - interval '60 days'
        and o.placed_at < :now
        and o.customer_id is not null
        and o.paid_at <= :now
        and o.marketplace is null
        and (o.cancelled_at is null or o.cancelled_at > :now)
        -- cheap, so that few are looked at closer
        and (
            o.promised_on < cast(cast(:now as timestamptz) at time zone 'UTC' as date)
            or exists (select 1 from external_events as k where k.order_id = o.order_id and k.kind = 'carrier_exception')
        )
        and delivered_at(o.order_id, :now) is null
),

late as (
    select
        w.*,
        w.late_at as at,
        null as cause
    from waiting as w
    where w.late_at <= :now and w.late_at > cast(:now as timestamptz) - cast(:reach as interval)
    union all
    select
        w.*,
        x.at,
        coalesce(x.detail ->> 'cause', 'exception') as cause
    from waiting as w
    inner join external_events as x on w.order_id = x.order_id
    where x.kind = 'carrier_exception' and x.at <= :now and x.known_at <= :now and x.at > cast(:now as timestamptz) - cast(:reach as interval)
)

select distinct on (l.order_id)
    l.source_id,
    'postlude:delivery_delayed:' || l.source_order_id || ':' || coalesce(cast(case when l.eta > l.promised_on then l.eta end as text), ''),
    l.customer_id,
    'delivery_delayed',
    l.at,
    :now,
    l.order_id,
    jsonb_build_object(
        'order_number', l.source_order_id, 'promised_on', l.promised_on,
        -- an ETA that is over is no news to give
        'eta', case when l.eta >= cast(cast(:now as timestamptz) at time zone l.time_zone as date) then l.eta end,
        'days_late', greatest(cast(cast(:now as timestamptz) at time zone l.time_zone as date) - l.promised_on, 0),
        'cause', l.cause, 'carrier', l.carrier, 'tracking_url', l.tracking_url
    ),
    true
from late as l
order by l.order_id, l.cause nulls last, l.at
on conflict do nothing
