-- key_lines: the delivered lines with their order and their key, without lines of older versions of an order.
--
-- reads   staging_order_lines, staging_files, chosen_orders, orders
-- writes  keyed_lines (temporary)
-- params  source text
-- re-run  after keyed_lines was dropped
create temporary table keyed_lines on commit drop as
with delivered as (
    select
        coalesce(c.order_id, o.order_id) as order_id,
        s.line_key,
        s.sku,
        s.description,
        s.quantity,
        s.unit_price,
        coalesce(s.placed_at, c.lines_at, o.placed_at) as placed_at,
        s._file,
        s._row,
        case
            when s.line_key is null then md5(concat(
                s.sku, chr(31), s.description, chr(31), trim_scale(s.quantity), chr(31), trim_scale(s.unit_price), chr(31),
                extract(epoch from s.placed_at)
            ))
        end as content
    from staging_order_lines as s
    left join chosen_orders as c on c.source_order_id = s.source_order_id
    -- only a line without its order in the same delivery is looked up among the stored ones
    left join orders as o
        on o.source_id = :source
        and o.source_order_id = case when c.source_order_id is null then s.source_order_id end
    left join staging_files as told on told.number = s._file
    left join staging_files as chosen on chosen.number = c.chosen_file
    where
        cardinality(s.problems) = 0
        and coalesce(c.order_id, o.order_id) is not null
        and c.verdict is distinct from 'older'
        -- where orders and lines come in the same files, only the file of the newest version speaks
        and (c.version is null or told.entity is distinct from chosen.entity or s._file = c.chosen_file)
),

numbered as (
    select
        *,
        -- identical lines inside one file are real; the same line in two files is one
        coalesce(
            line_key, concat(content, '#', row_number() over (partition by order_id, _file, content order by _row))
        ) as key
    from delivered
)

select distinct on (order_id, key)
    order_id,
    key,
    sku,
    description,
    quantity,
    unit_price,
    placed_at
from numbered
order by order_id, key, _file desc nulls last, _row desc
