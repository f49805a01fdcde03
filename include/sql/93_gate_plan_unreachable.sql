-- gate_plan_unreachable: planned messages that have nobody to go to: no address, a marketplace's customer, the control group.
--
-- reads   messages, enrolments, customers
-- writes  none
-- params  campaign text
-- re-run  safe: reads only
select m.message_id
from messages as m
inner join customers as c on m.customer_id = c.customer_id
inner join enrolments as e on m.enrolment_id = e.enrolment_id
where
    m.campaign_id = :campaign and (m.state = 'scheduled' or (m.state = 'held' and m.reason = 'awaiting_check'))
    and (
        (m.channel = 'email' and coalesce(c.address, '') !~ '^[^@\s]+@[^@\s]+$') or (m.channel = 'sms' and c.phone is null) or c.marketplace or e.arm <> 'treated'
        or e.customer_id <> m.customer_id
    )
