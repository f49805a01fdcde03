-- replace_facts: bring customer_facts to what facts_now says; rows that are equal are not touched.
--
-- reads   facts_now (temporary)
-- writes  customer_facts; readers see the old rows until the commit. facts_changed, unless the borders are set afresh
-- params  afresh boolean
-- re-run  safe: changes nothing the second time
with changed as (
    merge into customer_facts as had
    using facts_now as made on had.customer_id = made.customer_id
    when matched and (
        had.source_id, had.first_order_at, had.last_order_at, had.last_order_id, had.frequency,
        had.monetary, had.median_gap_days, had.stage, had.stage_since, had.next_stage_at, had.loyal_since
    ) is distinct from (
        made.source_id, made.first_order_at, made.last_order_at, made.last_order_id, made.frequency,
        made.monetary, made.median_gap_days, made.stage, made.stage_since, made.next_stage_at, made.loyal_since
    ) then update set
        source_id = made.source_id,
        first_order_at = made.first_order_at,
        last_order_at = made.last_order_at,
        last_order_id = made.last_order_id,
        frequency = made.frequency,
        monetary = made.monetary,
        median_gap_days = made.median_gap_days,
        stage = made.stage,
        stage_since = made.stage_since,
        next_stage_at = made.next_stage_at,
        loyal_since = made.loyal_since
    when not matched then insert (
        customer_id,
        source_id, first_order_at, last_order_at, last_order_id, frequency,
        monetary, median_gap_days, stage, stage_since, next_stage_at, loyal_since
    ) values (
        made.customer_id,
        made.source_id, made.first_order_at, made.last_order_at, made.last_order_id, made.frequency,
        made.monetary, made.median_gap_days, made.stage, made.stage_since, made.next_stage_at, made.loyal_since
    )
    returning
        old.source_id as source_before, old.last_order_at as last_before, old.frequency as frequency_before, old.monetary as monetary_before,
        new.customer_id, new.source_id, new.last_order_at, new.frequency, new.monetary
),

noted as (
    insert into facts_changed (source_id, customer_id, weight, last_order_at, frequency, monetary)
    select v.source_id, c.customer_id, v.weight, v.last_order_at, v.frequency, v.monetary
    from changed as c
    cross join lateral (
        values
        (-1, c.source_before, c.last_before, c.frequency_before, c.monetary_before),
        (1, c.source_id, c.last_order_at, c.frequency, c.monetary)
    ) as v (weight, source_id, last_order_at, frequency, monetary)
    where
        not cast(:afresh as boolean) and v.source_id is not null
        and (c.source_before, c.last_before, c.frequency_before, c.monetary_before)
        is distinct from (c.source_id, c.last_order_at, c.frequency, c.monetary)
)

select count(*) from changed
