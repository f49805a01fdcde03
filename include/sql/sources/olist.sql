-- Olist: orders, items, payments and reviews in files of their own; a customer has a new customer_id in each order,
-- the person is customer_unique_id.

-- entity: customers
select distinct on (p.customer_unique_id)
    p.customer_unique_id as source_customer_id,
    p.customer_unique_id || '@customers.example' as email, -- the files have no addresses
    'BR' as country,
    min(o.order_purchase_timestamp) over (partition by p.customer_unique_id) as created_at
from people as p
inner join orders_raw as o on o.customer_id = p.customer_id
order by p.customer_unique_id, o.order_purchase_timestamp

-- entity: consents
-- a decision of the shop: who bought may be told about similar goods until they say no (soft opt-in)
select
    p.customer_unique_id as source_customer_id,
    'email' as channel,
    'marketing' as topic,
    true as granted,
    min(o.order_purchase_timestamp) as at,
    'soft_opt_in' as basis
from people as p
inner join orders_raw as o on o.customer_id = p.customer_id
group by p.customer_unique_id

-- entity: products
-- articles have no names in these files; a mail can still say what kind of thing it was
select
    a.product_id as sku,
    initcap(replace(coalesce(w.product_category_name_english, a.product_category_name, 'your order'), '_', ' ')) as name,
    coalesce(w.product_category_name_english, a.product_category_name) as category
from articles as a
left join words as w on w.product_category_name = a.product_category_name

-- entity: orders
with paid as (
    select order_id, sum(to_number(payment_value)) as amount
    from payments
    group by order_id
)

select
    o.order_id as source_order_id,
    coalesce(p.customer_unique_id, o.customer_id) as source_customer_id,
    o.order_status as status,
    o.order_purchase_timestamp as placed_at,
    o.order_approved_at as paid_at,
    case when o.order_status in ('canceled', 'unavailable') then o.order_purchase_timestamp end as cancelled_at,
    o.order_estimated_delivery_date as promised_on,
    paid.amount as paid_amount,
    o._file,
    o._line
from orders_raw as o
left join people as p on p.customer_id = o.customer_id
left join paid on paid.order_id = o.order_id

-- entity: order_lines
select
    i.order_id as source_order_id,
    i.order_item_id as line_key,
    i.product_id as sku,
    1 as quantity,
    i.price as unit_price,
    i._file,
    i._line
from items as i

-- entity: shipments
select
    order_id as source_order_id,
    '1' as shipment_key,
    order_delivered_carrier_date as shipped_at,
    order_estimated_delivery_date as eta,
    order_delivered_customer_date as delivered_at,
    _file,
    _line
from orders_raw
where coalesce(order_delivered_carrier_date, order_delivered_customer_date) is not null

-- entity: reviews
select
    order_id as source_order_id,
    review_id as review_key,
    review_score as score,
    review_creation_date as created_at,
    review_answer_timestamp as answered_at,
    _file,
    _line
from ratings
