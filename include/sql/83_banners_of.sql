-- banners_of: what the shop's page shows to one person now, the newest first.
--
-- reads   banners
-- params  person uuid, now timestamptz
-- re-run  safe: reads only
select
    b.message_id,
    b.title,
    b.body,
    b.link,
    b.shown_until
from public_banners(:person, :now) as b
