-- letters: what a template needs to know for each claimed message.
--
-- reads   messages, enrolments, campaign_versions, customers, recipients, sources, orders, order_lines, products, shipments,
--         coupons, referral_codes, kept_letters
-- params  ids uuid[], with_items boolean, now timestamptz
-- re-run  safe: only reads
select
    m.message_id,
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
    -- as text, and null when nobody asks for it: few templates read it
    case when cast(:with_items as boolean) then coalesce(cast(lines.items as text), '[]') end as items,
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
        json_agg(
            json_build_object(
                'sku', l.sku,
                'name', coalesce(p.name, l.description, ''),
                'category', coalesce(p.category, ''),
                'url', p.url,
                'image_url', p.image_url,
                'quantity', l.quantity,
                'unit_price', l.unit_price
            )
            order by l.quantity * l.unit_price desc, l.line_key
        ) as items
    from order_lines as l
    left join products as p on l.sku = p.sku and p.source_id = o.source_id
    where l.order_id = o.order_id and l.counted and cast(:with_items as boolean)
) as lines on true
where m.message_id = any(cast(:ids as uuid []))
