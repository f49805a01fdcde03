-- audience_facts: what a person needs to decide about a plan: counts by step, shop and day, the difference to the campaign's
-- last release, and twenty customers with the reason they are in. Ids and counts only; the sample is the same on every look.
--
-- reads   messages, enrolments, customers, customer_features
-- params  campaign text, now timestamptz
-- re-run  safe: only reads
with waiting as (
    select
        m.message_id,
        m.customer_id,
        m.step_id,
        m.send_at,
        c.source_id,
        e.anchor_at,
        e.order_id
    from messages as m
    inner join enrolments as e on m.enrolment_id = e.enrolment_id
    inner join customers as c on m.customer_id = c.customer_id
    where
        m.campaign_id = :campaign and m.state = 'held' and m.reason in ('awaiting_check', 'awaiting_approval', 'canary_failed')
),

released as (
    select m.customer_id, m.planned_at
    from messages as m
    where
        m.campaign_id = :campaign
        and m.state <> 'held'
        and coalesce(m.reason, '') not in ('not_approved', 'approval_expired')
        and not (m.state = 'expired' and m.finalized_at <= m.planned_at)
),

before as (
    select distinct r.customer_id
    from released as r
    where r.planned_at = (select max(x.planned_at) from released as x)
),

sample as (
    select distinct on (w.customer_id) w.*, f.last_order_at, f.frequency
    from waiting as w
    left join customer_features as f on w.customer_id = f.customer_id
    order by w.customer_id, w.send_at, w.step_id
),

twenty as (
    select s.* from sample as s
    order by md5(s.message_id::text)
    limit 20
)

select
    (select jsonb_object_agg(x.step_id, x.n) from (select w.step_id, count(*) as n from waiting as w group by 1) as x) as steps,
    (
        select jsonb_object_agg(x.source_id, x.n)
        from (select w.source_id, count(distinct w.customer_id) as n from waiting as w group by 1) as x
    ) as shops,
    (
        select jsonb_object_agg(x.day, x.n)
        from (
            select greatest(w.send_at, cast(:now as timestamptz))::date as day, count(*) as n from waiting as w group by 1
        ) as x
    ) as days,
    (select max(r.planned_at) from released as r) as last_release,
    (select count(*) from before) as last_people,
    (
        select count(distinct w.customer_id) from waiting as w
        where not exists (select 1 from before as b where b.customer_id = w.customer_id)
    ) as entered,
    (
        select count(*) from before as b
        where not exists (select 1 from waiting as w where w.customer_id = b.customer_id)
    ) as departed,
    (
        select count(distinct w.customer_id) from waiting as w
        where exists (select 1 from released as r where r.customer_id = w.customer_id)
    ) as known,
    (
        select
            jsonb_agg(
                jsonb_build_object(
                    'customer', t.customer_id, 'step', t.step_id, 'since', t.anchor_at, 'order', t.order_id,
                    'last_order', t.last_order_at, 'orders', t.frequency, 'send', t.send_at
                )
                order by t.customer_id
            )
        from twenty as t
    ) as sample
