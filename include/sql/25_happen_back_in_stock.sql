-- happen_back_in_stock: who waits for a product that came back is told, the longest waiting first, and not many more than there are
-- pieces. Who is not told now is told when it comes back the next time.
--
-- reads   product_changes, products, external_events, orders, order_lines, sources
-- writes  external_events
-- params  now timestamptz, reach interval, per_piece numeric
-- re-run  safe: named by product, return and customer
insert into external_events (source_id, event_key, customer_id, kind, at, known_at, order_id, detail, worked_out)
with back as (
    select distinct on (c.source_id, c.sku)
        c.change_id,
        c.source_id,
        c.sku,
        c.at,
        c.now as pieces
    from product_changes as c
    where c.what in ('back', 'gone') and c.known_at <= :now and c.at > cast(:now as timestamptz) - cast(:reach as interval)
    order by c.source_id, c.sku, c.at desc, c.change_id desc
),

waiting as (
    select
        b.*,
        x.customer_id,
        min(x.at) as since
    from back as b
    inner join external_events as x
        on b.source_id = x.source_id and x.kind = 'product_watched' and upper(x.detail ->> 'sku') = upper(b.sku)
    where
        x.at <= b.at
        and x.at > b.at - interval '366 days'
        and coalesce(x.detail ->> 'wants', 'back_in_stock') = 'back_in_stock'
        and not bought_since(x.customer_id, b.sku, x.at, :now)
        -- told once for one wish: who wants to hear again says so again
        and not exists (
            select 1 from external_events as e
            where
                e.customer_id = x.customer_id
                and e.kind = 'back_in_stock'
                and e.worked_out
                and e.at >= x.at
                and e.at < b.at
                and e.detail ->> 'sku' = b.sku
        )
    group by b.change_id, b.source_id, b.sku, b.at, b.pieces, x.customer_id
),

ranked as (
    select
        w.*,
        row_number() over (partition by w.change_id order by w.since, w.customer_id) as turn
    from waiting as w
)

select
    r.source_id,
    'postlude:back_in_stock:' || r.change_id || ':' || r.customer_id,
    r.customer_id,
    'back_in_stock',
    r.at,
    :now,
    null,
    jsonb_build_object(
        'sku', p.sku, 'name', p.name, 'url', p.url, 'image_url', p.image_url, 'category', coalesce(p.category, ''), 'price', p.price,
        'currency', s.currency, 'waiting_since', cast(r.since at time zone s.time_zone as date)
    ),
    true
from ranked as r
inner join products as p on r.source_id = p.source_id and r.sku = p.sku
inner join sources as s on r.source_id = s.source_id
where p.in_stock and (r.pieces is null or r.turn <= r.pieces * :per_piece)
on conflict do nothing
