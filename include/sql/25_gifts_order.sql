-- gifts_order: the candidates in the order that seed and month give, drawn again the same: whoever else is there does not matter.
--
-- reads   gift_candidates, customers
-- params  seed text, month date, most int
-- re-run  safe: reads only
select
    g.customer_id,
    encode(sha256(convert_to(concat_ws(chr(31), cast(:seed as text), cast(cast(:month as date) as text), c.source_id, c.source_customer_id),
    'UTF8')), 'hex') as lot
from gift_candidates as g
inner join customers as c on g.customer_id = c.customer_id
where g.reason is null
order by lot, g.customer_id
limit :most
