-- Stripe: a payment taken is an order. For shops that have no shop system to ask; where there is one, ask that instead.
-- The raw tables have id, updated_at (time of creation) and payload, the record as JSON.
-- What Stripe cannot know: the articles of a charge (one line, with the charge's description; `metadata.sku` is used
-- where the checkout writes it), parcels and arrival, whether refunded goods came back, reviews, questions, consents, and
-- whether two charges belong to one purchase. A refund counts as a closed return of the whole order. Invoices paid outside
-- Stripe are orders with their lines; those paid by a charge come as the charge. Changes are known for 30 days only.

-- entity: customers
with told as (
    select
        id,
        cast(payload as jsonb) as c,
        updated_at,
        _file,
        _line
    from customers
    union all
    select
        cast(payload as jsonb) #>> '{data,object,id}',
        cast(payload as jsonb) #> '{data,object}',
        updated_at,
        _file,
        _line
    from events
    where cast(payload as jsonb) ->> 'type' like 'customer.%' and cast(payload as jsonb) #>> '{data,object,object}' = 'customer'
    union all
    -- a charge tells of its customer where nothing better does: its version is older than any
    select
        coalesce(
            cast(payload as jsonb) ->> 'customer',
            'guest-' || md5(lower(btrim(coalesce(cast(payload as jsonb) #>> '{billing_details,email}', cast(payload as jsonb) ->> 'receipt_email'))))
        ),
        jsonb_build_object(
            'email', coalesce(cast(payload as jsonb) #>> '{billing_details,email}', cast(payload as jsonb) ->> 'receipt_email'),
            'name', cast(payload as jsonb) #>> '{billing_details,name}',
            'address', cast(payload as jsonb) #> '{billing_details,address}'
        ),
        null,
        _file,
        _line
    from charges
    union all
    select
        cast(payload as jsonb) ->> 'customer',
        jsonb_build_object(
            'email', cast(payload as jsonb) ->> 'customer_email',
            'name', cast(payload as jsonb) ->> 'customer_name',
            'address', cast(payload as jsonb) -> 'customer_address'
        ),
        null,
        _file,
        _line
    from invoices
)

select distinct on (id)
    id as source_customer_id,
    c ->> 'email' as email,
    nullif(split_part(btrim(c ->> 'name'), ' ', 1), '') as first_name,
    nullif(regexp_replace(btrim(c ->> 'name'), '^\S+\s*', ''), '') as last_name,
    c #>> '{preferred_locales,0}' as locale,
    c #>> '{address,country}' as country,
    to_timestamp(cast(c ->> 'created' as bigint)) as created_at,
    updated_at,
    _file,
    _line
from told
where id is not null and c ->> 'deleted' is distinct from 'true'
order by id, to_instant(updated_at) desc nulls last, (c ->> 'email') is null

-- entity: orders
with told as (
    select
        cast(payload as jsonb) as c,
        updated_at,
        _file,
        _line
    from charges
    union all
    select
        cast(payload as jsonb) #> '{data,object}',
        updated_at,
        _file,
        _line
    from events
    where cast(payload as jsonb) #>> '{data,object,object}' = 'charge'
),

newest as (
    select distinct on (c ->> 'id') *
    from told
    where c ->> 'paid' = 'true' and c ->> 'captured' = 'true'
    order by c ->> 'id', to_instant(updated_at) desc
),

invoiced as (
    select
        cast(payload as jsonb) as i,
        updated_at,
        _file,
        _line
    from invoices
)

select
    c ->> 'id' as source_order_id,
    coalesce(
        c ->> 'customer', 'guest-' || md5(lower(btrim(coalesce(c #>> '{billing_details,email}', c ->> 'receipt_email'))))
    ) as source_customer_id,
    upper(c ->> 'currency') as currency,
    case
        when c ->> 'refunded' = 'true' then 'refunded'
        when to_number(c ->> 'amount_refunded') > 0 then 'partially_refunded'
        else c ->> 'status'
    end as status,
    to_timestamp(cast(c ->> 'created' as bigint)) as placed_at,
    to_timestamp(cast(c ->> 'created' as bigint)) as paid_at,
    -- amounts are in the smallest unit of the currency
    to_number(c ->> 'amount_captured') / case
        when c ->> 'currency' in ('bif', 'clp', 'djf', 'gnf', 'jpy', 'kmf', 'krw', 'mga', 'pyg', 'rwf', 'vnd', 'vuv', 'xaf', 'xof', 'xpf') then 1
        when c ->> 'currency' in ('bhd', 'jod', 'kwd', 'omr', 'tnd') then 1000
        else 100
    end as paid_amount,
    updated_at,
    _file,
    _line
from newest
union all
select
    i ->> 'id',
    i ->> 'customer',
    upper(i ->> 'currency'),
    i ->> 'status',
    to_timestamp(cast(i ->> 'created' as bigint)),
    to_timestamp(cast(i #>> '{status_transitions,paid_at}' as bigint)),
    to_number(i ->> 'total') / case
        when i ->> 'currency' in ('bif', 'clp', 'djf', 'gnf', 'jpy', 'kmf', 'krw', 'mga', 'pyg', 'rwf', 'vnd', 'vuv', 'xaf', 'xof', 'xpf') then 1
        when i ->> 'currency' in ('bhd', 'jod', 'kwd', 'omr', 'tnd') then 1000
        else 100
    end,
    updated_at,
    _file,
    _line
from invoiced
where
    i ->> 'status' = 'paid'
    and (
        i ->> 'paid_out_of_band' = 'true'
        or jsonb_path_exists(i, '$.payments.data[*].payment.type ? (@ == "out_of_band_payment" || @ == "payment_record")')
    )

-- entity: order_lines
with paid as (
    select distinct on (c ->> 'id') *
    from (
        select
            cast(payload as jsonb) as c,
            updated_at,
            _file,
            _line
        from charges
        union all
        select
            cast(payload as jsonb) #> '{data,object}',
            updated_at,
            _file,
            _line
        from events
        where cast(payload as jsonb) #>> '{data,object,object}' = 'charge'
    ) as told
    where c ->> 'paid' = 'true' and c ->> 'captured' = 'true'
    order by c ->> 'id', to_instant(updated_at) desc
)

select
    c ->> 'id' as source_order_id,
    '1' as line_key,
    c #>> '{metadata,sku}' as sku,
    c ->> 'description' as description,
    1 as quantity,
    to_number(c ->> 'amount_captured') / case
        when c ->> 'currency' in ('bif', 'clp', 'djf', 'gnf', 'jpy', 'kmf', 'krw', 'mga', 'pyg', 'rwf', 'vnd', 'vuv', 'xaf', 'xof', 'xpf') then 1
        when c ->> 'currency' in ('bhd', 'jod', 'kwd', 'omr', 'tnd') then 1000
        else 100
    end as unit_price,
    _file,
    _line
from paid
union all
select
    i.i ->> 'id',
    l.l ->> 'id',
    coalesce(l.l #>> '{metadata,sku}', l.l #>> '{price,product}', l.l #>> '{pricing,price_details,product}'),
    l.l ->> 'description',
    coalesce(nullif(cast(to_number(l.l ->> 'quantity') as int), 0), 1),
    to_number(l.l ->> 'amount') / coalesce(nullif(to_number(l.l ->> 'quantity'), 0), 1) / case
        when l.l ->> 'currency' in ('bif', 'clp', 'djf', 'gnf', 'jpy', 'kmf', 'krw', 'mga', 'pyg', 'rwf', 'vnd', 'vuv', 'xaf', 'xof', 'xpf') then 1
        when l.l ->> 'currency' in ('bhd', 'jod', 'kwd', 'omr', 'tnd') then 1000
        else 100
    end,
    r._file,
    r._line
from invoices as r
cross join lateral (select cast(r.payload as jsonb) as i) as i
cross join lateral jsonb_array_elements(coalesce(i.i #> '{lines,data}', '[]')) as l (l)
where
    i.i ->> 'status' = 'paid'
    and (
        i.i ->> 'paid_out_of_band' = 'true'
        or jsonb_path_exists(i.i, '$.payments.data[*].payment.type ? (@ == "out_of_band_payment" || @ == "payment_record")')
    )

-- entity: returns
-- refunds of charges that nothing here tells of (from before `start`, or never captured) have no order and are left out
select
    f.f ->> 'charge' as source_order_id,
    f.f ->> 'id' as return_key,
    to_timestamp(cast(f.f ->> 'created' as bigint)) as requested_at,
    to_timestamp(cast(f.f ->> 'created' as bigint)) as refunded_at,
    to_timestamp(cast(f.f ->> 'created' as bigint)) as closed_at,
    r._file,
    r._line
from refunds as r
cross join lateral (select cast(r.payload as jsonb) as f) as f
where
    f.f ->> 'status' in ('succeeded', 'pending')
    and (
        exists (select from charges as c where c.id = f.f ->> 'charge' and cast(c.payload as jsonb) ->> 'captured' = 'true')
        or exists (
            select from events as e
            where cast(e.payload as jsonb) #>> '{data,object,id}' = f.f ->> 'charge' and cast(e.payload as jsonb) #>> '{data,object,captured}' = 'true'
        )
        or exists (
            select from postlude.orders as o
            where o.source_id = current_setting('postlude.source') and o.source_order_id = f.f ->> 'charge'
        )
    )
