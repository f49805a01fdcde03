-- gate_feature_drift: each source's customers and stage mix beside those of the last good run.
-- Small shops move by chance: below `enough` customers the growth and the mix are not judged.
--
-- reads   customer_features
-- writes  none
-- params  baseline jsonb, enough int
-- re-run  safe: reads only
select
    source_id,
    sum(customers_now) as customers,
    sum(customers_then) as customers_before,
    case when sum(customers_then) >= cast(:enough as int) then sum(customers_now) / sum(customers_then) end as growth,
    -- the largest move of one stage's share, in points
    case
        when sum(customers_then) >= cast(:enough as int) and sum(customers_now) >= cast(:enough as int)
            then max(100 * abs(share_now - share_then))
    end as largest_move
from (
    select
        coalesce(present.source_id, past.source_id) as source_id,
        coalesce(present.customers, 0) as customers_now,
        coalesce(past.customers, 0) as customers_then,
        coalesce(present.customers / sum(present.customers) over same_source, 0) as share_now,
        coalesce(past.customers / sum(past.customers) over same_source, 0) as share_then
    from (
        select source_id, stage, cast(count(*) as numeric) as customers
        from customer_features group by source_id, stage
    ) as present
    full join (
        select b.source_id, b.stage, b.customers
        from jsonb_to_recordset(cast(:baseline as jsonb)) as b (source_id text, stage text, customers numeric)
    ) as past on present.source_id = past.source_id and present.stage = past.stage
    window same_source as (partition by coalesce(present.source_id, past.source_id))
) as compared
group by source_id
