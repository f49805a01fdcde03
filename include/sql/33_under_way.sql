-- under_way: the passages of a campaign that have not ended, with the recipient's clock.
-- A table of its own, so that the statements that follow are planned with its true size: of rows that this transaction has just
-- written the planner knows nothing, and takes them for one or two.
--
-- reads   enrolments, recipients
-- writes  under_way (temporary)
-- params  campaign text
-- re-run  safe: lives for one transaction
create temporary table under_way on commit drop as
select
    e.enrolment_id,
    e.version,
    e.customer_id,
    e.order_id,
    e.anchor_at,
    e.arm,
    r.zone,
    r.country,
    r.source_id
from enrolments as e
inner join recipients as r on e.customer_id = r.customer_id
where e.campaign_id = :campaign and e.exited_at is null
