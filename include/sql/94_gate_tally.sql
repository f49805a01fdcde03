-- gate_tally: per campaign, whether the counts per state add up to the whole.
--
-- reads   messages
-- writes  none
-- params  none
-- re-run  safe: reads only
select
    campaign_id,
    count(*) as messages,
    count(*) filter (where state in ('scheduled', 'held', 'sending', 'unknown')) as open_messages,
    count(*) filter (where state in ('sent', 'failed', 'cancelled', 'skipped', 'expired')) as closed_messages,
    count(*) filter (where finalized_at is null) as not_finalized,
    count(*) filter (where state in ('scheduled', 'held', 'sending', 'unknown'))
    + count(*) filter (where state in ('sent', 'failed', 'cancelled', 'skipped', 'expired')) as in_known_states
from messages
group by campaign_id
