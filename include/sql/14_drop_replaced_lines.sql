-- drop_replaced_lines: when a newer version of an order came with lines, stored lines it no longer has are gone.
--
-- reads   chosen_orders, keyed_lines
-- writes  order_lines
-- params  none
-- re-run  safe: after the first run there is nothing left to drop
delete from order_lines as l
using chosen_orders as c
where
    c.verdict = 'newer' and c.version is not null and l.order_id = c.stored_order_id
    and exists (select from keyed_lines as k where k.order_id = l.order_id)
    and not exists (select from keyed_lines as k where k.order_id = l.order_id and k.key = l.line_key)
