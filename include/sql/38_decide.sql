-- decide: the one decision about a request; a second one changes nothing.
--
-- writes  approval_decisions
-- params  approval_id bigint, decision text, decided_by text, via text, comment text, at_most bigint, audience_hash text,
--         released bigint, cancelled bigint, now timestamptz
-- re-run  safe: one decision per request
insert into approval_decisions (
    approval_id, decision, decided_by, via, comment, at_most, audience_hash, released, cancelled, at
)
values (:approval_id, :decision, :decided_by, :via, :comment, :at_most, :audience_hash, :released, :cancelled, :now)
on conflict do nothing
returning approval_id
