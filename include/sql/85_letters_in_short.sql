-- letters_in_short: what a simulated hand-over needs of claimed messages: whom a switch would stop, and the coupon.
--
-- reads   messages, enrolments, campaign_versions, customers, coupons
-- params  ids uuid[]
-- re-run  safe: only reads
select
    m.message_id,
    m.campaign_id,
    m.kind,
    c.source_id,
    coalesce(m.coupon_code, k.code) as coupon_code,
    (
        select s.value -> 'coupon' ->> 'pool'
        from jsonb_array_elements(v.definition -> 'steps') as s (value)
        where s.value ->> 'id' = m.step_id
    ) as pool
from messages as m
inner join enrolments as e on m.enrolment_id = e.enrolment_id
inner join campaign_versions as v on e.campaign_id = v.campaign_id and e.version = v.version
inner join customers as c on m.customer_id = c.customer_id
left join coupons as k on m.message_id = k.message_id and k.state in ('reserved', 'bound')
where m.message_id = any(cast(:ids as uuid []))
