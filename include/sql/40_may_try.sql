-- may_try: is the relay believed to work? Once the wait of an open breaker is over, one worker gets `probe` and tries; the others wait
-- a minute for what it finds.
--
-- reads   relay_breakers
-- writes  relay_breakers: next_try_at
-- params  channel text, now timestamptz
-- re-run  safe: the second one is told to wait
with probing as (
    update relay_breakers as b
    set next_try_at = cast(:now as timestamptz) + interval '1 minute'
    where b.channel = :channel and b.next_try_at <= :now
    returning b.channel
)

select
    b.failures,
    b.reply,
    b.opened_at,
    b.next_try_at,
    exists (select from probing) as probe
from relay_breakers as b
where b.channel = :channel
