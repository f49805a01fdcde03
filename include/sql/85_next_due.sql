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
            -- by the index of what is due: first its first ten minutes, then the earliest in them
            cross join lateral (
                select date_bin('10 minutes', m.send_at, timestamptz 'epoch') as begins
                from messages as m
                where m.channel = c.channel and m.priority = p.priority and m.state = 'scheduled'
                order by date_bin('10 minutes', m.send_at, timestamptz 'epoch')
                limit 1
            ) as f
            cross join lateral (
                select min(m.send_at) as send_at
                from messages as m
                where
                    m.channel = c.channel
                    and m.priority = p.priority
                    and m.state = 'scheduled'
                    and date_bin('10 minutes', m.send_at, timestamptz 'epoch') = f.begins
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
