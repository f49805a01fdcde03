-- campaign_sample: up to twenty customers under way in a campaign, spread over all of them, with what they get next.
--
-- reads   enrolments, messages, customer_features
-- params  campaign text
-- re-run  safe: only reads
with ends as (
    select min(e.customer_id) as low, max(e.customer_id) as high
    from enrolments as e
    where e.campaign_id = :campaign and e.exited_at is null
),

found as (
    select distinct near.customer_id
    from ends as e
    cross join generate_series(0, 19) as n (step)
    cross join lateral (
        select p.customer_id from enrolments as p
        where p.campaign_id = :campaign and p.exited_at is null and p.customer_id >= e.low + (e.high - e.low) * n.step / 19
        order by p.customer_id
        limit 1
    ) as near
)

select distinct on (e.customer_id)
    e.customer_id as customer,
    e.arm,
    e.anchor_at,
    e.enrolled_at,
    f.stage,
    f.frequency as orders,
    next.step_id as step,
    next.send_at
from found as u
inner join enrolments as e on u.customer_id = e.customer_id
left join customer_features as f on e.customer_id = f.customer_id
left join lateral (
    select m.step_id, m.send_at from messages as m
    where m.enrolment_id = e.enrolment_id and m.state in ('scheduled', 'held')
    order by m.send_at
    limit 1
) as next on true
where e.campaign_id = :campaign and e.exited_at is null
order by e.customer_id, e.enrolled_at desc
