-- quota_use: places taken on a day, and the messages that wait for one.
--
-- reads   quota_use, messages
-- params  day date
-- re-run  safe: only reads
with waiting as (
    select m.channel, m.detail as provider, count(*) as messages
    from messages as m
    where m.state = 'scheduled' and m.reason = 'quota'
    group by m.channel, m.detail
)

select u.channel, u.provider, u.used, coalesce(w.messages, 0) as waiting
from quota_use as u
left join waiting as w on u.channel = w.channel and u.provider = w.provider
where u.day = :day
