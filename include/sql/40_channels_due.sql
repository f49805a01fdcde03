-- channels_due: the channels on which something is due, and whether it is for people or only for ghosts.
--
-- reads   messages, ghost_messages
-- params  now timestamptz
-- re-run  safe: reads only
select
    d.channel,
    d.people
from (
    select
        c.channel,
        exists (select 1 from messages as m where m.channel = c.channel and m.state = 'scheduled' and m.send_at <= :now) as people,
        exists (select 1 from ghost_messages as g where g.channel = c.channel and g.state = 'scheduled' and g.send_at <= :now) as ghosts
    from (values ('email'), ('sms'), ('webhook'), ('banner')) as c (channel)
) as d
where d.people or d.ghosts
