-- trial_message: one message of one step to one customer, about the newest order, for a trial that is rolled back.
--
-- reads   customers, orders
-- writes  enrolments, messages
-- params  campaign text, version text, customer bigint, step text, template text, kind text, channel text, now timestamptz,
--         expires_at timestamptz, about_order boolean
-- re-run  safe: rolled back by the caller
with passage as (
    insert into enrolments (
        enrolment_id, campaign_id, version, customer_id, order_id, anchor_key, anchor_at, watch_from, enrolled_at, run_id
    )
    select
        uuid_of('trial', :campaign, c.customer_id::text),
        :campaign,
        :version,
        c.customer_id,
        (
            select o.order_id from orders as o
            where cast(:about_order as boolean) and o.customer_id = c.customer_id and o.counted_at is not null and o.placed_at < :now
            order by o.placed_at desc, o.order_id desc
            limit 1
        ),
        'trial',
        :now,
        :now,
        :now,
        'trial'
    from customers as c
    where c.customer_id = :customer
    returning enrolment_id, customer_id
)

insert into messages (
    message_id, enrolment_id, campaign_id, step_id, customer_id, channel, kind, template, due_at, send_at, expires_at, attempt,
    planned_at, run_id
)
select
    uuid_of('message', p.enrolment_id::text, :step), p.enrolment_id, :campaign, :step, p.customer_id, :channel, :kind, :template,
    :now, :now, :expires_at, 1, :now, 'trial'
from passage as p
returning message_id
