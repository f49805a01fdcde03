-- to_move: is anything planned that a moved step still has to move or stop?
--
-- reads   messages
-- params  campaign text, step text, since timestamptz
-- re-run  safe: only reads
select exists (
    select 1 from messages as m
    where
        m.campaign_id = :campaign and m.state in ('scheduled', 'held') and m.step_id = :step and m.planned_at < :since and m.lost_answers = 0
) as found
