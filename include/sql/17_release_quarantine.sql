-- release_quarantine: refused rows whose corrected version was loaded need nobody's attention any more.
--
-- reads   staging tables of the delivery
-- writes  quarantine.released_at
-- params  source text, now timestamptz
-- re-run  safe: released once
with refused as (
    select
        quarantine_id,
        entity,
        btrim(case entity
            when 'customers' then raw ->> 'source_customer_id'
            when 'consents' then raw ->> 'source_customer_id'
            when 'products' then raw ->> 'sku'
            when 'tickets' then raw ->> 'ticket_key'
            when 'external_events' then raw ->> 'event_key'
            else raw ->> 'source_order_id'
        end) as key,
        coalesce(btrim(case entity
            when 'consents' then raw ->> 'topic'
            when 'order_lines' then coalesce(raw ->> 'line_key', raw ->> 'sku')
            when 'shipments' then raw ->> 'shipment_key'
            when 'returns' then raw ->> 'return_key'
            when 'reviews' then raw ->> 'review_key'
        end), '') as part
    from quarantine
    where source_id = :source and released_at is null
),

delivered as (
    select 'orders' as entity, source_order_id as key, '' as part, problems from staging_orders
    union all
    select 'customers', source_customer_id, '', problems from staging_customers
    union all
    select 'consents', source_customer_id, coalesce(topic, ''), problems from staging_consents
    union all
    select 'products', sku, '', problems from staging_products
    union all
    -- a line without a number of its own is known by its order and article
    select 'order_lines', source_order_id, coalesce(line_key, sku, ''), problems from staging_order_lines
    union all
    select 'shipments', source_order_id, coalesce(shipment_key, ''), problems from staging_shipments
    union all
    select 'returns', source_order_id, coalesce(return_key, ''), problems from staging_returns
    union all
    select 'reviews', source_order_id, coalesce(review_key, ''), problems from staging_reviews
    union all
    select 'tickets', ticket_key, '', problems from staging_tickets
    union all
    select 'external_events', event_key, '', problems from staging_external_events
),

mended as (
    select r.quarantine_id
    from refused as r
    inner join delivered as d on d.entity = r.entity and d.key = r.key and d.part = r.part
    group by r.quarantine_id
    having bool_and(cardinality(d.problems) = 0)
)

update quarantine as q
set released_at = :now
from mended as m
where q.quarantine_id = m.quarantine_id
