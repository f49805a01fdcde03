-- release_quarantine: refused rows whose corrected version was loaded need nobody's attention any more.
--
-- reads   staging tables of the delivery
-- writes  quarantine.released_at
-- params  source text, now timestamptz
-- re-run  safe: released once
with loaded as (
    select 'orders' as entity, source_order_id as key, null as part from staging_orders where cardinality(problems) = 0
    union all
    select 'customers', source_customer_id, null from staging_customers where cardinality(problems) = 0
    union all
    select 'consents', source_customer_id, topic from staging_consents where cardinality(problems) = 0
    union all
    select 'products', sku, null from staging_products where cardinality(problems) = 0
    union all
    -- a line without a number of its own is known by its order and article
    select 'order_lines', source_order_id, coalesce(line_key, sku) from staging_order_lines where cardinality(problems) = 0
    union all
    select 'shipments', source_order_id, shipment_key from staging_shipments where cardinality(problems) = 0
    union all
    select 'returns', source_order_id, return_key from staging_returns where cardinality(problems) = 0
    union all
    select 'reviews', source_order_id, review_key from staging_reviews where cardinality(problems) = 0
    union all
    select 'tickets', ticket_key, null from staging_tickets where cardinality(problems) = 0
),

refused as (
    select
        quarantine_id,
        entity,
        case entity
            when 'customers' then raw ->> 'source_customer_id'
            when 'consents' then raw ->> 'source_customer_id'
            when 'products' then raw ->> 'sku'
            when 'tickets' then raw ->> 'ticket_key'
            else raw ->> 'source_order_id'
        end as key,
        case entity
            when 'consents' then raw ->> 'topic'
            when 'order_lines' then coalesce(raw ->> 'line_key', raw ->> 'sku')
            when 'shipments' then raw ->> 'shipment_key'
            when 'returns' then raw ->> 'return_key'
            when 'reviews' then raw ->> 'review_key'
        end as part
    from quarantine
    where source_id = :source and released_at is null
)

update quarantine as q
set released_at = :now
where q.quarantine_id in (
    select r.quarantine_id
    from refused as r
    inner join loaded as l on l.entity = r.entity and l.key = btrim(r.key) and coalesce(l.part, '') = coalesce(btrim(r.part), '')
)
