-- stop_moved: the calendar moved a step and said that what was planned for it before is not sent.
--
-- reads, writes  messages: scheduled, held -> cancelled (step_moved); ghost_messages: scheduled -> cancelled
-- params         campaign text, step text, since timestamptz, now timestamptz
-- re-run         safe: what is cancelled stays so
with stopped as (
    update messages as m
    set state = 'cancelled', reason = 'step_moved', finalized_at = :now
    where
        m.campaign_id = :campaign and m.state in ('scheduled', 'held') and m.step_id = :step and m.planned_at < :since and m.lost_answers = 0
    returning 1
),

laid_to_rest as (
    update ghost_messages as g
    set state = 'cancelled', reason = 'step_moved', finalized_at = :now
    where g.campaign_id = :campaign and g.state = 'scheduled' and g.step_id = :step and g.planned_at < :since
    returning 1
)

select count(*) as stopped from stopped
