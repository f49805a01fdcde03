-- next_due: when the next message or ghost is due, on any channel, and whether a share of a large release is being watched.
--
-- reads   messages, ghost_messages, canaries
-- params  none
-- re-run  safe: only reads
select
    least(
        (
            select min(d.send_at)
            from (values ('email'), ('sms'), ('webhook'), ('banner')) as c (channel)
            cross join generate_series(1, 9) as p (priority)
            cross join lateral (
                select m.send_at
                from messages as m
                where m.channel = c.channel and m.priority = p.priority and m.state = 'scheduled'
                order by m.send_at
                limit 1
            ) as d
        ),
        (
            select min(d.send_at)
            from (values ('email'), ('sms'), ('webhook'), ('banner')) as c (channel)
            cross join lateral (
                select g.send_at
                from ghost_messages as g
                where g.channel = c.channel and g.state = 'scheduled'
                order by g.send_at
                limit 1
            ) as d
        )
    ) as at,
    exists (select 1 from canaries as k where k.outcome is null) as canaries
