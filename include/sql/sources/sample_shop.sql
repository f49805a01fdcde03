-- The feed of the sample shop (docs/sample-shop.md). Every id is the shop's own; instants come with their offset.
-- An order's parts lie in files of their own, so no select passes on the file a row came from.

-- entity: customers
select
    customer_id as source_customer_id,
    email,
    first_name,
    last_name,
    locale,
    time_zone,
    country,
    to_flag(marketplace) as marketplace,
    to_instant(created_at) as created_at,
    to_instant(updated_at) as updated_at
from customers

-- entity: consents
select
    customer_id as source_customer_id,
    channel,
    topic,
    to_flag(granted) as granted,
    to_instant(agreed_at) as at,
    basis
from consents

-- entity: products
select
    sku,
    name,
    category,
    to_number(price) as price,
    url,
    image_url,
    to_flag(in_stock) as in_stock,
    to_instant(updated_at) as updated_at
from products

-- entity: orders
select
    order_id as source_order_id,
    customer_id as source_customer_id,
    currency,
    status,
    to_instant(placed_at) as placed_at,
    to_instant(paid_at) as paid_at,
    to_instant(cancelled_at) as cancelled_at,
    to_day(promised_on) as promised_on,
    to_number(paid_amount) as paid_amount,
    marketplace,
    to_flag(gift) as gift,
    to_instant(updated_at) as updated_at
from orders

-- entity: order_lines
select
    order_id as source_order_id,
    line_no as line_key,
    sku,
    description,
    to_number(quantity) as quantity,
    to_number(unit_price) as unit_price,
    to_instant(placed_at) as placed_at
from order_lines

-- entity: shipments
select
    order_id as source_order_id,
    shipment_id as shipment_key,
    carrier,
    tracking_url,
    to_instant(shipped_at) as shipped_at,
    to_day(eta) as eta,
    to_instant(delivered_at) as delivered_at
from shipments

-- entity: returns
select
    order_id as source_order_id,
    return_id as return_key,
    sku,
    to_instant(requested_at) as requested_at,
    to_instant(received_at) as received_at,
    to_instant(refunded_at) as refunded_at,
    to_instant(closed_at) as closed_at
from returns

-- entity: reviews
select
    order_id as source_order_id,
    review_id as review_key,
    sku,
    to_number(score) as score,
    to_instant(created_at) as created_at,
    to_instant(answered_at) as answered_at
from reviews

-- entity: tickets
select
    ticket_id as ticket_key,
    customer_id as source_customer_id,
    to_instant(opened_at) as opened_at,
    to_instant(closed_at) as closed_at
from tickets
