set local search_path = postlude;

create or replace view ratings as
select
    e.event_id::text as rating, e.customer_id, n.order_id, null::text as sku, m.campaign_id,
    (e.detail ->> 'score')::int as score,
    case when (e.detail ->> 'score')::int > 5 or e.detail ->> 'scale' = '10' then 10 else 5 end as scale, e.at, e.known_at,
    coalesce(e.detail ->> 'about', 'item') as about
from events as e
join messages as m using (message_id)
join enrolments as n using (enrolment_id)
where e.kind = 'rated' and e.detail ->> 'score' ~ '^(10|[0-9])$'
union all
select
    'review:' || r.order_id || ':' || r.review_key, o.customer_id, r.order_id, r.sku, null,
    r.score, case when r.score > 5 or s.settings ->> 'review_scale' = '10' then 10 else 5 end, r.created_at, r.created_at, 'item'
from reviews as r
join orders as o using (order_id)
join sources as s on s.source_id = o.source_id
where r.score is not null and r.review_key not like 'postlude:%';
comment on view ratings is 'Every answer: clicked in a mail, or a review of the shop. Scale 5: stars; scale 10: 0 to 10, "would you recommend us?". about: item, delivery or shop.';
