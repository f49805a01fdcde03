-- banners_of: what the shop's page shows to one person now, the newest first.
--
-- reads   banners
-- params  person uuid, now timestamptz
-- re-run  safe: reads only
select b.message_id, b.title, b.body, b.link, b.shown_until
from banners as b
where b.person = :person and b.shown_from <= :now and b.shown_until > :now
order by b.shown_from desc, b.message_id
limit 5
