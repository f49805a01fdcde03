-- lock_quota: today's counters, held until the claim is committed; claims under a quota follow each other.
--
-- writes  quota_use (rows of a new day, row locks)
-- params  channel text, day date, providers text[]
-- re-run  safe: counts nothing
insert into quota_use (channel, provider, day)
select
    :channel,
    p.provider,
    :day
from unnest(cast(:providers as text [])) as p (provider)
order by p.provider
on conflict (channel, provider, day) do update set used = quota_use.used
