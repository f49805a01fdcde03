-- happen_abandoned_checkout: a checkout was begun, and an hour later there is no order. A later checkout of the same cart is not a new one.
--
-- reads   external_events, orders, products, sources, customers
-- writes  external_events
-- params  now timestamptz, reach interval
-- re-run  safe: named by the cart
insert into external_events (source_id, event_key, customer_id, kind, at, known_at, order_id, detail, worked_out)
select distinct on (x.customer_id, x.source_id, coalesce(x.detail ->> 'cart', x.event_key))
    x.source_id,
    'postlude:abandoned_checkout:' || x.source_id || ':' || coalesce(x.detail ->> 'cart', x.event_key),
    x.customer_id,
    'abandoned_checkout',
    x.at,
    :now,
    null,
    jsonb_build_object(
        'items', i.items, 'amount', coalesce(x.detail -> 'amount', to_jsonb(i.amount)), 'currency', s.currency, 'url', x.detail -> 'url'
    ),
    true
from external_events as x
inner join sources as s on x.source_id = s.source_id
cross join lateral (
    select
        jsonb_agg(
            jsonb_build_object(
                'sku', p.sku, 'name', p.name, 'url', p.url, 'image_url', p.image_url, 'category', coalesce(p.category, ''),
                'quantity', c.quantity, 'unit_price', p.price, 'in_stock', p.in_stock is not false
            )
            order by p.price * c.quantity desc nulls last, p.sku
        ) as items,
        sum(p.price * c.quantity) as amount
    from jsonb_to_recordset(
        case jsonb_typeof(x.detail -> 'items') when 'array' then x.detail -> 'items' else '[]' end
    ) as c (sku text, quantity numeric)
    cross join lateral (
        -- one by one: the planner takes a cart for a hundred items, and would read the catalogue for each
        select q.*
        from products as q
        where q.source_id = x.source_id and upper(q.sku) = upper(c.sku)
        offset 0
    ) as p
) as i
where
    x.kind = 'checkout_started'
    and x.at > cast(:now as timestamptz) - cast(:reach as interval)
    and x.at <= cast(:now as timestamptz) - interval '1 hour'
    and x.known_at <= :now
    and i.items is not null
    and not ordered_since(x.customer_id, x.at, :now)
order by x.customer_id, x.source_id, coalesce(x.detail ->> 'cart', x.event_key), x.at
on conflict do nothing
