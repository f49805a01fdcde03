-- derive_features: facts per customer as of an instant, into the transaction's own table facts_now.
--
-- reads   orders_in_question (temporary view: all orders, or those of customers_in_question), customers
-- writes  facts_now (temporary, with the columns of customer_facts)
-- params  now timestamptz, new_days int, active_days int, at_risk_days int, loyalty_orders int, loyalty_spend numeric
-- re-run  into an empty table
insert into facts_now (
    customer_id, source_id, first_order_at, last_order_at, last_order_id, frequency, monetary, median_gap_days,
    stage, stage_since, next_stage_at, loyal_since
)
with counted as (
    -- one pass in the order of the index orders_counted; all windows share one definition
    select
        customer_id,
        order_id,
        counted_at,
        coalesce(counted_amount, 0) as amount,
        row_number() over passage as nth,
        sum(coalesce(counted_amount, 0)) over passage as spent,
        date_part('epoch', counted_at - lag(counted_at) over passage) as gap,
        lead(order_id) over passage is null as newest
    from orders_in_question
    where counted_at < :now and customer_id is not null and (cancelled_at is null or cancelled_at > :now)
    window passage as (partition by customer_id order by counted_at, order_id rows unbounded preceding)
),

-- hours, not days: a day of 23 hours must not move a threshold
thresholds as (
    select
        make_interval(hours => 24 * cast(:new_days as int)) as new_for,
        make_interval(hours => 24 * cast(:active_days as int)) as active_for,
        make_interval(hours => 24 * cast(:at_risk_days as int)) as at_risk_for
),

histories as (
    select
        customer_id,
        min(counted_at) as first_order_at,
        max(counted_at) filter (where nth = 2) as second_order_at,
        max(counted_at) as last_order_at,
        max(order_id) filter (where newest) as last_order_id,
        cast(count(*) as int) as frequency,
        round(sum(amount), 2) as monetary,  -- to the cent: what is shown adds up
        round(cast(percentile_cont(0.5) within group (order by gap) / 86400 as numeric), 6) as median_gap_days,
        -- the latest order that ended a time of being at risk or lapsed
        max(counted_at) filter (where gap >= 86400 * cast(:active_days as float8)) as returned_at,
        min(counted_at) filter (
            where nth >= cast(:loyalty_orders as int) or spent >= cast(:loyalty_spend as numeric)
        ) as loyal_since
    from counted
    group by customer_id
),

staged as (
    select
        histories.*,
        thresholds.*,
        case
            when last_order_at > :now - new_for and frequency = 1 then 'new'
            when last_order_at > :now - active_for then 'active'
            when last_order_at > :now - at_risk_for then 'at_risk'
            else 'lapsed'
        end as stage
    from histories
    cross join thresholds
)

select
    staged.customer_id,
    customers.source_id,
    first_order_at,
    last_order_at,
    last_order_id,
    frequency,
    monetary,
    median_gap_days,
    stage,
    -- the first instant from which the present stage held without a break
    case stage
        when 'new' then first_order_at
        when 'active' then coalesce(returned_at, least(second_order_at, first_order_at + new_for))
        when 'at_risk' then last_order_at + active_for
        else last_order_at + at_risk_for
    end as stage_since,
    case stage
        when 'new' then last_order_at + new_for
        when 'active' then last_order_at + active_for
        when 'at_risk' then last_order_at + at_risk_for
    end as next_stage_at,
    loyal_since
from staged
inner join customers on customers.customer_id = staged.customer_id
