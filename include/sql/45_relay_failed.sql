-- relay_failed: one more failure in a row. So many of them, or one that is the configuration's fault, open the breaker; a try that
-- fails doubles the wait.
--
-- writes  relay_breakers
-- params  channel text, reply text, now timestamptz, most int, at_once boolean, probe boolean, shortest interval, longest interval
-- re-run  not safe: counts each failure
insert into relay_breakers as b (channel, failures, reply, opened_at, wait, next_try_at)
select
    :channel,
    1,
    :reply,
    case when w.opens then cast(:now as timestamptz) end,
    case when w.opens then cast(:shortest as interval) end,
    case when w.opens then cast(:now as timestamptz) + cast(:shortest as interval) end
from (select :at_once or :most <= 1 as opens) as w
on conflict (channel) do update set
    failures = b.failures + 1,
    reply = excluded.reply,
    opened_at = coalesce(
        b.opened_at, excluded.opened_at, case when b.failures + 1 >= :most then cast(:now as timestamptz) end
    ),
    wait = case
        when b.opened_at is not null and :probe then least(b.wait * 2, cast(:longest as interval))
        when b.opened_at is not null then b.wait
        when :at_once or b.failures + 1 >= :most then cast(:shortest as interval)
    end,
    next_try_at = case
        when b.opened_at is not null and :probe then cast(:now as timestamptz) + least(b.wait * 2, cast(:longest as interval))
        when b.opened_at is not null then b.next_try_at
        when :at_once or b.failures + 1 >= :most then cast(:now as timestamptz) + cast(:shortest as interval)
    end
returning b.failures, b.opened_at, b.next_try_at
