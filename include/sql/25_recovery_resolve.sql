-- recovery_resolve: a good answer after a case was opened resolves it.
--
-- reads   ratings
-- writes  recoveries: resolved
-- params  now timestamptz, good int
-- re-run  safe: a resolved case stays so
update recoveries as r
set
    resolved_at = g.at,
    resolved_by = 'the customer''s answer',
    resolution = 'score ' || g.score || ' of ' || g.scale
from (
    select distinct on (o.recovery_id)
        o.recovery_id,
        a.at,
        a.score,
        a.scale
    from recoveries as o
    inner join ratings as a on o.customer_id = a.customer_id
    where
        o.resolved_at is null
        and a.at > o.opened_at
        and a.at <= :now
        and a.known_at <= :now
        and a.score >= case a.scale when 5 then cast(:good as int) else 8 end
    order by o.recovery_id, a.at
) as g
where r.recovery_id = g.recovery_id and r.resolved_at is null
