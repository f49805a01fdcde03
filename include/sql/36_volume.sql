-- volume: what a campaign has planned and not released yet, in one row of figures; nothing planned gives zeros.
-- The hash is over the sorted (customer, step) pairs: the same people for the same messages, and nobody else.
--
-- reads   messages, customer_features
-- params  campaign text
-- re-run  safe: only reads
select
    count(*) as messages,
    count(distinct m.customer_id) as people,
    count(*) filter (where m.reason = 'canary_failed') as failed_canary,
    count(*) filter (where m.reason = 'awaiting_approval') as waiting,
    count(*) filter (where m.reason = 'awaiting_check') as fresh,
    max(m.expires_at) as expires_at,
    encode(
        sha256(convert_to(
            coalesce(string_agg(m.customer_id || ' ' || m.step_id, chr(10) order by m.customer_id, m.step_id, m.message_id), ''),
            'UTF8'
        )),
        'hex'
    ) as audience_hash,
    -- everybody is counted only where there is something to compare
    case when count(*) > 0 then (select count(*) from customer_features) else 0 end as base
from messages as m
where m.campaign_id = :campaign and m.state = 'held' and m.reason in ('awaiting_check', 'awaiting_approval', 'canary_failed')
