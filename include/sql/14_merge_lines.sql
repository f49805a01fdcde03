-- merge_lines: the lines of a delivery; a line that is there already counts once.
--
-- reads   keyed_lines
-- writes  order_lines
-- params  none
-- re-run  safe: an equal line changes nothing
insert into order_lines as l (order_id, line_key, sku, description, quantity, unit_price, placed_at)
select
    order_id,
    key,
    sku,
    description,
    quantity,
    unit_price,
    placed_at
from keyed_lines
on conflict (order_id, line_key) do update set
    sku = excluded.sku,
    description = excluded.description,
    quantity = excluded.quantity,
    unit_price = excluded.unit_price,
    placed_at = excluded.placed_at
where
    (l.sku, l.description, l.quantity, l.unit_price, l.placed_at)
    is distinct from (excluded.sku, excluded.description, excluded.quantity, excluded.unit_price, excluded.placed_at)
