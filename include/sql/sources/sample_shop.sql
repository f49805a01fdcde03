-- The feed of the sample shop (docs/sample-shop.md). Values are given as delivered and read by the intake.
-- Rows pass on the file and line they came from, for the quarantine.

-- entity: customers
select
    customer_id as source_customer_id,
    email,
    first_name,
    last_name,
    locale,
    time_zone,
    country,
    birthday,
    renews_on,
    marketplace,
    created_at,
    updated_at,
    _file,
    _line
from customers

-- entity: consents
select
    customer_id as source_customer_id,
    channel,
    topic,
    granted,
    agreed_at as at,
    basis,
    _file,
    _line
from consents

-- entity: products
select
    sku,
    name,
    category,
    price,
    url,
    image_url,
    in_stock,
    cost,
    stock,
    updated_at,
    _file,
    _line
from products

-- entity: orders
select
    order_id as source_order_id,
    customer_id as source_customer_id,
    currency,
    status,
    placed_at,
    paid_at,
    cancelled_at,
    promised_on,
    paid_amount,
    marketplace,
    gift,
    shipping_amount,
    payment,
    address,
    url,
    updated_at,
    _file,
    _line
from orders

-- entity: order_lines
select
    order_id as source_order_id,
    line_no as line_key,
    sku,
    description,
    quantity,
    unit_price,
    placed_at,
    _file,
    _line
from order_lines

-- entity: shipments
select
    order_id as source_order_id,
    shipment_id as shipment_key,
    carrier,
    tracking_url,
    tracking_number,
    shipped_at,
    eta,
    delivered_at,
    _file,
    _line
from shipments

-- entity: returns
select
    order_id as source_order_id,
    return_id as return_key,
    sku,
    requested_at,
    received_at,
    refunded_at,
    label_url,
    closed_at,
    _file,
    _line
from returns

-- entity: reviews
select
    order_id as source_order_id,
    review_id as review_key,
    sku,
    score,
    created_at,
    answered_at,
    _file,
    _line
from reviews

-- entity: tickets
select
    ticket_id as ticket_key,
    customer_id as source_customer_id,
    opened_at,
    closed_at,
    topic,
    _file,
    _line
from tickets

-- entity: external_events
select
    customer_id as source_customer_id,
    event_id as event_key,
    kind,
    happened_at as at,
    order_id as source_order_id,
    detail,
    _file,
    _line
from external_events
