-- next_due: when the next message or ghost is due, on any channel, and whether a share of a large release is being watched.
--
-- reads   messages, ghost_messages, canaries
-- params  none
-- re-run  safe: only reads
select
    least(
        (
            select min(d.at)
            from (values ('email'), ('sms'), ('webhook'), ('banner')) as c (channel)
            cross join lateral (select min(m.send_at) as at from messages as m where m.channel = c.channel and m.state = 'scheduled') as d
        ),
        (
            select min(d.at)
            from (values ('email'), ('sms'), ('webhook'), ('banner')) as c (channel)
            cross join lateral (select min(g.send_at) as at from ghost_messages as g where g.channel = c.channel and g.state = 'scheduled') as d
        )
    ) as at,
    exists (select 1 from canaries as k where k.outcome is null) as canaries
