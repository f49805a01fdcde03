-- channels_due: the channels on which something is due, and whether it is for people or only for ghosts.
--
-- reads   messages, ghost_messages
-- params  now timestamptz
-- re-run  safe: reads only
-- the first of each priority (a campaign file knows 1 to 9), by the index of what is due: asked whether there is any, the planner
-- would read all messages in the belief that one comes soon
select
    d.channel,
    d.people
from (
    select
        c.channel,
        exists (
            select 1
            from generate_series(1, 9) as p (priority)
            cross join lateral (
                select m.send_at
                from messages as m
                where
                    m.channel = c.channel
                    and m.priority = p.priority
                    and m.state = 'scheduled'
                    and date_bin('10 minutes', m.send_at, timestamptz 'epoch') <= :now
                    and m.send_at <= :now
                order by date_bin('10 minutes', m.send_at, timestamptz 'epoch'), m.customer_id
                limit 1
            ) as f
        ) as people,
        coalesce(
            (
                select g.send_at
                from ghost_messages as g
                where g.channel = c.channel and g.state = 'scheduled'
                order by g.send_at
                limit 1
            ) <= :now,
            false
        ) as ghosts
    from (values ('email'), ('sms'), ('webhook'), ('banner')) as c (channel)
) as d
where d.people or d.ghosts
