-- A shop's own database, as include/sources/database.yml reads it. Values arrive as text and are read by the intake.

-- entity: customers
select
    id as source_customer_id,
    email,
    first_name,
    last_name,
    country,
    created_at,
    updated_at,
    _file,
    _line
from customers

-- entity: consents
select
    customer_id as source_customer_id,
    'email' as channel,
    'marketing' as topic,
    granted,
    agreed_at as at,
    case
        when to_flag(granted) is false then 'unsubscribe'
        when to_flag(double_opt_in) then 'double_opt_in'
        else 'opt_in'
    end as basis,
    _file,
    _line
from consents

-- entity: products
select
    sku,
    name,
    category,
    price,
    in_stock,
    _file,
    _line
from products

-- entity: orders
select
    id as source_order_id,
    customer_id as source_customer_id,
    status,
    placed_at,
    paid_at,
    cancelled_at,
    total as paid_amount,
    updated_at,
    _file,
    _line
from orders

-- entity: order_lines
select
    order_id as source_order_id,
    position as line_key,
    sku,
    name as description,
    quantity,
    unit_price,
    _file,
    _line
from order_lines

-- entity: shipments
select
    order_id as source_order_id,
    id as shipment_key,
    carrier,
    tracking_url,
    shipped_at,
    delivered_at,
    _file,
    _line
from parcels

-- entity: returns
select
    order_id as source_order_id,
    id as return_key,
    sku,
    requested_at,
    received_at,
    refunded_at,
    refunded_at as closed_at,
    _file,
    _line
from refunds
