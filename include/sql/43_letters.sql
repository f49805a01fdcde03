-- letters: what a template needs to know for each claimed message.
--
-- reads   messages, enrolments, campaign_versions, customers, recipients, sources, orders, order_lines, products, shipments,
--         returns, external_events, coupons, referral_codes, kept_letters
-- params  ids uuid[], facts text[] (the parts that somebody asks for; few templates do), now timestamptz
-- re-run  safe: only reads
select
    m.message_id,
    cast(m.message_id as text) as key,
    m.campaign_id,
    m.step_id,
    m.template,
    m.kind,
    m.channel,
    m.expires_at,
    c.phone,
    -- for channels that know no address
    case when m.channel <> 'email' then uuid_of('person', c.source_id, c.source_customer_id) end as person,
    m.attempt,
    m.due_at,
    coalesce(m.coupon_code, k.code) as coupon_code,
    k.valid_until as coupon_valid_until,
    (select r.code from referral_codes as r where r.customer_id = m.customer_id) as referral_code,
    e.version,
    -- the same for thousands of messages: one of them brings it
    case
        when row_number() over (partition by e.campaign_id, e.version order by m.message_id) = 1 then cast(v.definition as text)
    end as definition,
    s.source_id,
    s.shop,
    s.currency,
    btrim(c.email) as email,
    coalesce(c.first_name, '') as first_name,
    coalesce(c.last_name, '') as last_name,
    coalesce(c.locale, s.locale) as locale,
    coalesce(c.country, '') as country,
    r.zone,
    o.source_order_id as order_number,
    o.placed_at,
    d.delivered_at,
    -- these, and what stands below, are null when nobody asks for them
    case when 'lines' = any(cast(:facts as text [])) then '[' || coalesce(lines.items, '') || ']' end as items,
    o.cancelled_at <= :now as cancelled,
    o.promised_on,
    o.currency as order_currency,
    o.counted_amount,
    o.paid_amount,
    o.shipping_amount,
    o.discount_amount,
    o.tax_amount,
    o.payment,
    o.address,
    o.url as order_url,
    parcels.shipments,
    back.returned,
    happened.detail as event,
    happened.kind as event_kind,
    happened.at as event_at,
    case when 'score' = any(cast(:facts as text [])) then newest_score(e.enrolment_id, e.order_id, :now) end as score,
    -- handed over before, answer lost: nothing is written anew
    b.letter as kept_letter,
    b.raw as kept_raw
from messages as m
inner join enrolments as e on m.enrolment_id = e.enrolment_id
inner join campaign_versions as v on e.campaign_id = v.campaign_id and e.version = v.version
inner join customers as c on m.customer_id = c.customer_id
inner join sources as s on c.source_id = s.source_id
cross join lateral (
    -- one by one: joined as a whole, the view would be worked out for every customer there is
    select
        q.zone
    from recipients as q
    where q.customer_id = c.customer_id
    limit 1
) as r
left join orders as o on e.order_id = o.order_id
cross join lateral deliveries_of(o.order_id, :now) as d
left join lateral (
    select
        a.letter,
        a.raw
    from kept_letters as a
    where a.message_id = m.message_id and m.lost_answers > 0
    limit 1
) as b on true
left join lateral (
    select
        a.code,
        a.valid_until
    from coupons as a
    where a.message_id = m.message_id and a.state in ('reserved', 'bound')
    limit 1
) as k on true
left join lateral (
    -- the dearest line first: it is the item the mail is about
    select
        -- as text: a document would be built, written and taken apart at twice the cost. The names of the values are in letter_facts.py
        string_agg(
            cast(
                json_build_array(
                    l.sku,
                    coalesce(p.name, l.description, ''),
                    coalesce(p.category, ''),
                    p.url,
                    p.image_url,
                    l.quantity,
                    l.unit_price,
                    l.quantity * l.unit_price
                ) as text
            ), ', '
            order by l.quantity * l.unit_price desc, l.line_key
        ) as items
    from order_lines as l
    left join products as p on l.sku = p.sku and p.source_id = o.source_id
    where l.order_id = o.order_id and l.counted and 'lines' = any(cast(:facts as text []))
) as lines on true
left join lateral (
    -- in the order in which they left; those still here come last
    select
        jsonb_agg(
            jsonb_build_object(
                'carrier', p.carrier,
                'tracking_url', p.tracking_url,
                'tracking_number', p.tracking_number,
                'shipped_at', case when p.shipped_at <= :now then p.shipped_at end,
                'eta_on', p.eta,
                'delivered_at', case when p.delivered_at <= :now then p.delivered_at end,
                'mine', e.anchor_key = 'parcel:' || o.source_id || ':' || o.source_order_id || ':' || p.shipment_key
            )
            order by p.shipped_at nulls last, p.shipment_key
        ) as shipments
    from shipments as p
    where p.order_id = o.order_id and 'parcels' = any(cast(:facts as text []))
) as parcels on true
left join lateral (
    -- the return the passage is about, else the newest one of the order
    select
        jsonb_build_object(
            'received', b.received_at <= :now,
            'refunded', b.refunded_at <= :now,
            'exchanged', b.exchanged_at <= :now,
            'amount', b.refund_amount,
            'due_on', b.refund_due_on,
            'label_url', b.label_url
        ) as returned
    from returns as b
    where b.order_id = o.order_id and b.requested_at <= :now and 'return' = any(cast(:facts as text []))
    order by
        starts_with(e.anchor_key, 'return:' || o.source_id || ':' || o.source_order_id || ':' || b.return_key || ':') desc,
        b.requested_at desc, b.return_key
    limit 1
) as back on true
left join lateral (
    select
        x.detail,
        x.kind,
        x.at
    from external_events as x
    where
        x.customer_id = m.customer_id and x.kind = v.definition -> 'trigger' ->> 'external' and x.at = e.anchor_at
        and 'event' = any(cast(:facts as text []))
    -- two events of one instant (a second new ETA) are told apart by the anchor
    order by e.anchor_key = 'external:' || x.source_id || ':' || x.event_key desc, x.known_at, x.source_id, x.event_key
    limit 1
) as happened on true
where m.message_id = any(cast(:ids as uuid []))
