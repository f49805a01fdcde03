-- choose_orders: one row per delivered order, the newest version, and how it stands to the stored one.
--
-- reads   staging_orders, orders
-- writes  chosen_orders (temporary): verdict new, newer (replaces), same, older (changes nothing)
-- params  source text
-- re-run  after chosen_orders was dropped
create temporary table chosen_orders on commit drop as
with delivered as (
    select
        *,
        row_number() over (
            partition by source_order_id order by updated_at desc nulls last, _file desc nulls last, _row desc
        ) as nth,
        -- files that overlap may each hold a part of an order; without versions its time is the earliest told
        min(placed_at) over (partition by source_order_id) as earliest
    from staging_orders
    where cardinality(problems) = 0
),

compared as (
    select
        d._row as chosen_row,
        d._file as chosen_file,
        d.source_order_id,
        o.order_id as stored_order_id,
        o.placed_at as stored_placed_at,
        d.updated_at as version,
        case when d.updated_at is null then least(d.earliest, o.placed_at) else d.placed_at end as placed_at,
        case
            when o.order_id is null then 'new'
            when o.updated_at is null or d.updated_at > o.updated_at then 'newer'
            when d.updated_at = o.updated_at then 'same'
            else 'older'
        end as verdict
    from delivered as d
    left join orders as o on o.source_id = :source and o.source_order_id = d.source_order_id
    where d.nth = 1
)

select
    c.*,
    -- a new order gets its number here, so that its lines are known by it before it is stored; numbers follow the time
    coalesce(c.stored_order_id, nextval(pg_get_serial_sequence('orders', 'order_id'))) as order_id,
    case when c.verdict in ('new', 'newer') then c.placed_at else c.stored_placed_at end as lines_at
from (select * from compared order by placed_at, source_order_id collate "C" offset 0) as c
