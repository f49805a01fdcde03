-- refusals_of_window: who was not enrolled in a window, and why.
--
-- reads   refusals
-- params  first timestamptz
-- re-run  safe: only reads
select
    cast(r.first_seen at time zone 'UTC' as date) as day,
    r.campaign_id as campaign,
    r.reason,
    count(distinct r.customer_id) as customers
from refusals as r
where r.first_seen >= :first
group by 1, 2, 3
order by 1, 2, 3
