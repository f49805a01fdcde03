-- merge_returns: returns. Dates only add up, except that the last delivery says whether the return is closed.
--
-- reads   staging_returns, orders, chosen_orders
-- writes  returns
-- params  source text
-- re-run  safe: an equal row changes nothing
insert into returns as t (order_id, return_key, sku, requested_at, received_at, refunded_at, exchanged_at, refund_amount, refund_due_on, label_url, closed_at)
select distinct on (o.order_id, s.return_key)
    o.order_id,
    s.return_key,
    s.sku,
    s.requested_at,
    max(s.received_at) over (partition by o.order_id, s.return_key),
    max(s.refunded_at) over (partition by o.order_id, s.return_key),
    max(s.exchanged_at) over (partition by o.order_id, s.return_key),
    s.refund_amount,
    s.refund_due_on,
    s.label_url,
    s.closed_at
from staging_returns as s
inner join orders as o on o.source_id = :source and o.source_order_id = s.source_order_id
left join chosen_orders as c on s.source_order_id = c.source_order_id
where
    cardinality(s.problems) = 0
    -- what came with an older version of the order does not open a closed return again
    and not (
        coalesce(c.verdict, '') = 'older'
        and exists (select from returns as r where r.order_id = o.order_id and r.return_key = s.return_key and r.closed_at is not null)
    )
order by o.order_id, s.return_key, s._file desc nulls last, s._row desc
on conflict (order_id, return_key) do update set
    sku = excluded.sku,
    requested_at = excluded.requested_at,
    received_at = coalesce(excluded.received_at, t.received_at),
    refunded_at = coalesce(excluded.refunded_at, t.refunded_at),
    exchanged_at = coalesce(excluded.exchanged_at, t.exchanged_at),
    refund_amount = coalesce(excluded.refund_amount, t.refund_amount),
    refund_due_on = coalesce(excluded.refund_due_on, t.refund_due_on),
    label_url = coalesce(excluded.label_url, t.label_url),
    closed_at = excluded.closed_at
where
    (
        t.sku, t.requested_at, t.received_at, t.refunded_at, t.exchanged_at, t.refund_amount, t.refund_due_on, t.label_url, t.closed_at
    )
    is distinct from (
        excluded.sku, excluded.requested_at, coalesce(excluded.received_at, t.received_at),
        coalesce(excluded.refunded_at, t.refunded_at), coalesce(excluded.exchanged_at, t.exchanged_at),
        coalesce(excluded.refund_amount, t.refund_amount), coalesce(excluded.refund_due_on, t.refund_due_on),
        coalesce(excluded.label_url, t.label_url), excluded.closed_at
    )
