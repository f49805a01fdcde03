-- Shopify, Admin REST API: an order carries its customer, lines, fulfilments and refunds.
-- The raw tables have id, updated_at and payload, the record as JSON. Test orders are left out.
-- Who ordered without an account is known by a hash of the address; whether two accounts are one person is never guessed.
-- What Shopify does not tell: a promised date; the arrival, unless the carrier reports it ("shipment_status").

-- entity: customers
with told as (
    select
        cast(payload as jsonb) as c,
        cast(null as jsonb) as o,
        _file,
        _line
    from customers
    union all
    select
        cast(payload as jsonb) -> 'customer',
        cast(payload as jsonb),
        _file,
        _line
    from orders
    where cast(payload as jsonb) ->> 'test' is distinct from 'true'
),

named as (
    select
        *,
        coalesce(
            c ->> 'id', 'guest-' || md5(lower(btrim(coalesce(nullif(o ->> 'email', ''), nullif(o ->> 'contact_email', '')))))
        ) as id,
        coalesce(c ->> 'email', o ->> 'email', o ->> 'contact_email') as email
    from told
)

select distinct on (id)
    id as source_customer_id,
    email,
    coalesce(c ->> 'first_name', o #>> '{billing_address,first_name}') as first_name,
    coalesce(c ->> 'last_name', o #>> '{billing_address,last_name}') as last_name,
    o ->> 'customer_locale' as locale,
    coalesce(c #>> '{default_address,country_code}', o #>> '{shipping_address,country_code}') as country,
    -- marketplaces hand out relay addresses; such a person is counted and never mailed
    email ~* '@(marketplace\.amazon\.[a-z.]+|members\.ebay\.[a-z.]+|relay\.walmart\.com)$' as marketplace,
    coalesce(c ->> 'created_at', o ->> 'created_at') as created_at,
    coalesce(c ->> 'updated_at', o ->> 'updated_at') as updated_at,
    _file,
    _line
from named
where id is not null
order by id, to_instant(coalesce(c ->> 'updated_at', o ->> 'updated_at')) desc nulls last, (o is null) desc

-- entity: consents
with told as (
    select cast(payload as jsonb) as c from customers
    union all
    select cast(payload as jsonb) -> 'customer'
    from orders
    where cast(payload as jsonb) ->> 'test' is distinct from 'true'
),

said as (
    select
        c ->> 'id' as id,
        c -> 'email_marketing_consent' as consent
    from told
)

select distinct
    id as source_customer_id,
    'email' as channel,
    'marketing' as topic,
    consent ->> 'state' = 'subscribed' as granted,
    consent ->> 'consent_updated_at' as at,
    case
        when consent ->> 'state' <> 'subscribed' then 'unsubscribe'
        when consent ->> 'opt_in_level' = 'confirmed_opt_in' then 'double_opt_in'
        else 'opt_in'
    end as basis
from said
-- "pending" and "not_subscribed" are no statement of the person; without a time nobody can say which statement is newer
where id is not null and consent ->> 'state' in ('subscribed', 'unsubscribed', 'redacted') and consent ->> 'consent_updated_at' is not null

-- entity: products
with variants as (
    select
        cast(r.payload as jsonb) as p,
        v.v,
        r.updated_at,
        r._file,
        r._line
    from products as r
    cross join lateral jsonb_array_elements(cast(r.payload as jsonb) -> 'variants') as v (v)
)

select distinct on (sku)
    coalesce(nullif(btrim(v ->> 'sku'), ''), v ->> 'id') as sku,
    (p ->> 'title') || case when v ->> 'title' <> 'Default Title' then ' - ' || (v ->> 'title') else '' end as name,
    nullif(p ->> 'product_type', '') as category,
    v ->> 'price' as price,
    p #>> '{image,src}' as image_url,
    to_number(v ->> 'inventory_quantity') > 0 or v ->> 'inventory_policy' = 'continue' as in_stock,
    to_number(v ->> 'inventory_quantity') as stock,
    updated_at,
    _file,
    _line
from variants
order by sku, to_instant(updated_at) desc

-- entity: orders
with told as (
    select
        cast(payload as jsonb) as o,
        updated_at,
        _file,
        _line
    from orders
)

select
    o ->> 'id' as source_order_id,
    coalesce(
        o #>> '{customer,id}',
        'guest-' || md5(lower(btrim(coalesce(nullif(o ->> 'email', ''), nullif(o ->> 'contact_email', '')))))
    ) as source_customer_id,
    o ->> 'currency' as currency,
    o ->> 'financial_status' as status,
    coalesce(o ->> 'processed_at', o ->> 'created_at') as placed_at,
    case
        when o ->> 'financial_status' in ('paid', 'partially_refunded', 'refunded') then coalesce(o ->> 'processed_at', o ->> 'created_at')
    end as paid_at,
    coalesce(o ->> 'cancelled_at', case when o ->> 'financial_status' = 'voided' then updated_at end) as cancelled_at,
    o ->> 'total_price' as paid_amount,
    -- channels of the shop itself are "web", "pos" and the like; name your marketplaces here
    case when o ->> 'source_name' in ('amazon', 'ebay', 'walmart', 'etsy') then o ->> 'source_name' end as marketplace,
    updated_at,
    _file,
    _line
from told
where o ->> 'test' is distinct from 'true'

-- entity: order_lines
-- a line is worth its price less its share of all discounts
select
    o.o ->> 'id' as source_order_id,
    l.l ->> 'id' as line_key,
    coalesce(nullif(btrim(l.l ->> 'sku'), ''), l.l ->> 'variant_id') as sku,
    coalesce(l.l ->> 'name', l.l ->> 'title') as description,
    l.l ->> 'quantity' as quantity,
    case
        when d.off is null or to_number(l.l ->> 'quantity') <= 0 then to_number(l.l ->> 'price')
        else round(to_number(l.l ->> 'price') - d.off / to_number(l.l ->> 'quantity'), 4)
    end as unit_price,
    r._file,
    r._line
from orders as r
cross join lateral (select cast(r.payload as jsonb) as o) as o
cross join lateral jsonb_array_elements(o.o -> 'line_items') as l (l)
cross join lateral (
    select sum(to_number(a.a ->> 'amount')) as off
    from jsonb_array_elements(coalesce(l.l -> 'discount_allocations', '[]')) as a (a)
) as d
where o.o ->> 'test' is distinct from 'true'

-- entity: shipments
select
    o.o ->> 'id' as source_order_id,
    f.f ->> 'id' as shipment_key,
    f.f ->> 'tracking_company' as carrier,
    f.f ->> 'tracking_url' as tracking_url,
    f.f ->> 'created_at' as shipped_at,
    f.f ->> 'estimated_delivery_at' as eta,
    case when f.f ->> 'shipment_status' = 'delivered' then f.f ->> 'updated_at' end as delivered_at,
    r._file,
    r._line
from orders as r
cross join lateral (select cast(r.payload as jsonb) as o) as o
cross join lateral jsonb_array_elements(coalesce(o.o -> 'fulfillments', '[]')) as f (f)
where o.o ->> 'test' is distinct from 'true' and f.f ->> 'status' = 'success'

-- entity: returns
-- a refund of goods is a return of each of them; one without goods (a goodwill, the freight) is one row without an article
select
    o.o ->> 'id' as source_order_id,
    (f.f ->> 'id') || coalesce('-' || (i.i ->> 'id'), '') as return_key,
    coalesce(nullif(btrim(i.i #>> '{line_item,sku}'), ''), i.i #>> '{line_item,variant_id}') as sku,
    f.f ->> 'created_at' as requested_at,
    f.f ->> 'created_at' as refunded_at,
    f.f ->> 'created_at' as closed_at,
    r._file,
    r._line
from orders as r
cross join lateral (select cast(r.payload as jsonb) as o) as o
cross join lateral jsonb_array_elements(coalesce(o.o -> 'refunds', '[]')) as f (f)
left join lateral jsonb_array_elements(coalesce(f.f -> 'refund_line_items', '[]')) as i (i) on true
where o.o ->> 'test' is distinct from 'true'
