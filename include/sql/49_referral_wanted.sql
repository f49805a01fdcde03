-- referral_wanted: customers of a campaign's waiting messages who have no referral code yet.
--
-- reads   messages, referral_codes
-- params  campaign text
-- re-run  safe: only reads
select distinct m.customer_id
from messages as m
where
    m.campaign_id = :campaign
    and m.state in ('scheduled', 'held')
    and not exists (select 1 from referral_codes as r where r.customer_id = m.customer_id)
