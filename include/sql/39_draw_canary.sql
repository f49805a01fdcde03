-- draw_canary: the earliest messages of a release that waits for its canary go first; ties are broken by the message id, which is
-- as good as drawn by lot.
--
-- reads   messages
-- writes  messages: held (awaiting_canary) -> scheduled; canary_messages
-- params  canary_id bigint, share int, now timestamptz
-- re-run  each call draws further ones
with drawn as (
    update messages as m
    set state = 'scheduled', reason = null
    from (
        select w.message_id
        from messages as w
        where w.canary_id = :canary_id and w.state = 'held' and w.reason = 'awaiting_canary' and w.expires_at > :now
        order by greatest(w.send_at, cast(:now as timestamptz)), w.message_id
        limit :share
        for update
    ) as first
    where m.message_id = first.message_id
    returning m.message_id
)

insert into canary_messages (canary_id, message_id, drawn_at)
select :canary_id, d.message_id, :now
from drawn as d
on conflict do nothing
