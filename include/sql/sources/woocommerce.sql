-- WooCommerce, REST API v3: an order carries its customer's address and its lines; refunds are records of their own.
-- The raw tables have id, updated_at and payload, the record as JSON. Times are taken from the "_gmt" fields.
-- Who ordered as a guest is known by a hash of the address; whether two accounts are one person is never guessed.
-- What WooCommerce does not tell without a plugin: consents, parcels, the day of arrival, a promised date. A completed order
-- counts as shipped, and nothing ever counts as delivered: campaigns that wait for a delivery need a plugin's data here.

-- entity: customers
with told as (
    select
        cast(payload as jsonb) as c,
        cast(payload as jsonb) ->> 'id' as id,
        coalesce(cast(payload as jsonb) ->> 'email', cast(payload as jsonb) #>> '{billing,email}') as email,
        cast(payload as jsonb) ->> 'date_created_gmt' as created_at,
        cast(payload as jsonb) ->> 'date_modified_gmt' as updated_at,
        _file,
        _line
    from customers
    union all
    select
        cast(payload as jsonb),
        coalesce(
            nullif(cast(payload as jsonb) ->> 'customer_id', '0'),
            'guest-' || md5(lower(btrim(nullif(cast(payload as jsonb) #>> '{billing,email}', ''))))
        ),
        cast(payload as jsonb) #>> '{billing,email}',
        null,
        cast(payload as jsonb) ->> 'date_modified_gmt',
        _file,
        _line
    from orders
    where cast(payload as jsonb) ->> 'status' not in ('trash', 'checkout-draft', 'auto-draft')
)

select distinct on (id)
    id as source_customer_id,
    email,
    coalesce(nullif(c #>> '{billing,first_name}', ''), c ->> 'first_name') as first_name,
    coalesce(nullif(c #>> '{billing,last_name}', ''), c ->> 'last_name') as last_name,
    c #>> '{billing,country}' as country,
    created_at || 'Z' as created_at,
    updated_at || 'Z' as updated_at,
    _file,
    _line
from told
where id is not null
order by id, updated_at desc nulls last

-- entity: consents
-- checkout plugins write the box that was ticked into the order; put the name of yours here
select distinct
    coalesce(
        nullif(o.o ->> 'customer_id', '0'), 'guest-' || md5(lower(btrim(nullif(o.o #>> '{billing,email}', ''))))
    ) as source_customer_id,
    'email' as channel,
    'marketing' as topic,
    to_flag(m.m ->> 'value') as granted,
    (o.o ->> 'date_created_gmt') || 'Z' as at,
    case when to_flag(m.m ->> 'value') then 'opt_in' else 'unsubscribe' end as basis
from orders as r
cross join lateral (select cast(r.payload as jsonb) as o) as o
cross join lateral jsonb_array_elements(coalesce(o.o -> 'meta_data', '[]')) as m (m)
where m.m ->> 'key' = '_marketing_opt_in' and to_flag(m.m ->> 'value') is not null

-- entity: products
select
    coalesce(nullif(btrim(cast(payload as jsonb) ->> 'sku'), ''), id) as sku,
    cast(payload as jsonb) ->> 'name' as name,
    cast(payload as jsonb) #>> '{categories,0,name}' as category,
    nullif(cast(payload as jsonb) ->> 'price', '') as price,
    cast(payload as jsonb) ->> 'permalink' as url,
    cast(payload as jsonb) #>> '{images,0,src}' as image_url,
    cast(payload as jsonb) ->> 'stock_status' = 'instock' as in_stock,
    to_number(cast(payload as jsonb) ->> 'stock_quantity') as stock,
    updated_at,
    _file,
    _line
from products

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
    coalesce(nullif(o ->> 'customer_id', '0'), 'guest-' || md5(lower(btrim(nullif(o #>> '{billing,email}', ''))))) as source_customer_id,
    o ->> 'currency' as currency,
    o ->> 'status' as status,
    (o ->> 'date_created_gmt') || 'Z' as placed_at,
    (o ->> 'date_paid_gmt') || 'Z' as paid_at,
    case when o ->> 'status' in ('cancelled', 'failed') then updated_at end as cancelled_at,
    o ->> 'total' as paid_amount,
    updated_at,
    _file,
    _line
from told
where o ->> 'status' not in ('trash', 'checkout-draft', 'auto-draft')

-- entity: order_lines
-- a line is worth its total after discounts, without tax
select
    o.o ->> 'id' as source_order_id,
    l.l ->> 'id' as line_key,
    coalesce(nullif(btrim(l.l ->> 'sku'), ''), nullif(l.l ->> 'variation_id', '0'), l.l ->> 'product_id') as sku,
    l.l ->> 'name' as description,
    l.l ->> 'quantity' as quantity,
    case
        when to_number(l.l ->> 'quantity') > 0 then round(to_number(l.l ->> 'total') / to_number(l.l ->> 'quantity'), 4)
        else to_number(l.l ->> 'price')
    end as unit_price,
    r._file,
    r._line
from orders as r
cross join lateral (select cast(r.payload as jsonb) as o) as o
cross join lateral jsonb_array_elements(o.o -> 'line_items') as l (l)
where o.o ->> 'status' not in ('trash', 'checkout-draft', 'auto-draft')

-- entity: shipments
select
    cast(payload as jsonb) ->> 'id' as source_order_id,
    '1' as shipment_key,
    (cast(payload as jsonb) ->> 'date_completed_gmt') || 'Z' as shipped_at,
    _file,
    _line
from orders
where cast(payload as jsonb) ->> 'status' = 'completed' and cast(payload as jsonb) ->> 'date_completed_gmt' is not null

-- entity: returns
-- a refund of goods is a return of each of them; one without goods is one row without an article
select
    o.o ->> 'order_id' as source_order_id,
    (o.o ->> 'id') || coalesce('-' || (l.l ->> 'id'), '') as return_key,
    coalesce(nullif(btrim(l.l ->> 'sku'), ''), nullif(l.l ->> 'variation_id', '0'), l.l ->> 'product_id') as sku,
    (o.o ->> 'date_created_gmt') || 'Z' as requested_at,
    (o.o ->> 'date_created_gmt') || 'Z' as refunded_at,
    (o.o ->> 'date_created_gmt') || 'Z' as closed_at,
    r._file,
    r._line
from refunds as r
cross join lateral (select cast(r.payload as jsonb) as o) as o
left join lateral jsonb_array_elements(coalesce(o.o -> 'line_items', '[]')) as l (l) on true
