-- gifts_settle: on its day a drawn gift is given, or withdrawn with the reason that has come up since.
--
-- reads   gift_candidates
-- writes  gift_draws: given, withdrawn
-- params  now timestamptz
-- re-run  safe: settled once
update gift_draws as g
set
    state = case when d.customer_id is null or d.reason is not null then 'withdrawn' else 'given' end,
    reason = case when d.customer_id is null then 'no_orders' else d.reason end,
    settled_at = :now
from gift_draws as k
left join gift_candidates as d on k.customer_id = d.customer_id
where k.month = g.month and k.customer_id = g.customer_id and g.state = 'drawn' and g.at <= :now
returning g.state
