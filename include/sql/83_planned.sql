-- planned: how many mails are planned per day and campaign, as the public pages may read it.
--
-- reads   messages
-- params  now timestamptz
-- re-run  safe: reads only
select
    p.day,
    p.campaign,
    p.mails
from public_planned(:now) as p
