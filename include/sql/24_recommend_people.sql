-- recommend_people: for each message, what is recommended to its customer now.
--
-- reads   messages, enrolments, recommendations, bestsellers, products, orders, order_lines, returns
-- params  ids uuid[], most int, now timestamptz
-- re-run  safe: reads only
select
    m.message_id,
    jsonb_agg(
        jsonb_build_object(
            'sku', r.sku, 'name', r.name, 'url', r.url, 'image_url', r.image_url, 'category', r.category, 'price', r.price,
            'currency', r.currency,
            -- a category is no name of an item: the mail says less
            'reason', replace(r.reason, 'category_', ''), 'because', case when r.reason not like '%bestseller' then r.because end
        )
        order by r.place
    ) as recommendations
from messages as m
inner join enrolments as e on m.enrolment_id = e.enrolment_id
cross join lateral recommended(m.customer_id, e.order_id, :most, :now) as r
where m.message_id = any(cast(:ids as uuid []))
group by m.message_id
