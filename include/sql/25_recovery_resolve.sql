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
from recoveries as o
-- case by case: there are few, and joined as a whole all answers there are would be read for each
cross join lateral (
    select
        a.at,
        a.score,
        a.scale
    from ratings as a
    where
        a.customer_id = o.customer_id
        and a.at > o.opened_at
        and a.at <= :now
        and a.known_at <= :now
        and a.score >= case a.scale when 5 then cast(:good as int) else 8 end
    order by a.at
    limit 1
) as g
where r.recovery_id = o.recovery_id and o.resolved_at is null and r.resolved_at is null
