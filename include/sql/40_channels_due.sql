-- channels_due: the channels on which something is due.
--
-- reads   messages
-- params  now timestamptz
-- re-run  safe: reads only
select c.channel
from (values ('email'), ('sms'), ('webhook'), ('banner')) as c (channel)
where exists (select 1 from messages as m where m.channel = c.channel and m.state = 'scheduled' and m.send_at <= :now)
