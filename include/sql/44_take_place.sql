-- take_place: one place among the `most` of any minute, if there is one left. The caller holds the provider's row (44_lock_pace).
-- Places are counted by the second, so a minute is looked at as 61 seconds: never too many.
--
-- reads   provider_places
-- writes  provider_places
-- params  channel text, family text, most int, now timestamptz
-- re-run  not safe: each run takes a place
with over as (
    delete from provider_places
    where channel = :channel and family = :family and second <= cast(:now as timestamptz) - interval '61 seconds'
),

used as (
    select
        coalesce(sum(p.taken), 0) as taken,
        min(p.second) as oldest
    from provider_places as p
    where p.channel = :channel and p.family = :family and p.second > cast(:now as timestamptz) - interval '61 seconds'
),

took as (
    insert into provider_places as p (channel, family, second, taken)
    select
        :channel,
        :family,
        date_trunc('second', cast(:now as timestamptz)),
        1
    from used as u
    where u.taken < :most
    on conflict (channel, family, second) do update set taken = p.taken + 1
    returning p.family
)

select
    exists (select from took) as taken,
    u.oldest + interval '61 seconds' as free_at
from used as u
