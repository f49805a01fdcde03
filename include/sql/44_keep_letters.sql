-- keep_letters: the bytes of transactional messages, with their intents: should an answer be lost, the same bytes go again.
-- Follows 44_intend in its transaction, and only for what that has kept: a worker that has lost its claim must not replace what its
-- successor handed over.
--
-- reads   messages
-- writes  kept_letters
-- params  rows jsonb (raw: base64), worker text, now timestamptz
-- re-run  safe: one letter per message; a new attempt of a message that nobody can have got replaces it
insert into kept_letters (message_id, kept_at, letter, raw)
select
    w.message_id,
    :now,
    w.letter,
    decode(w.raw, 'base64')
from jsonb_to_recordset(:rows) as w (message_id uuid, attempt int, letter jsonb, raw text)
inner join messages as m on w.message_id = m.message_id
where m.state = 'sending' and m.claimed_by = :worker and m.attempt = w.attempt and m.handed_over_at = :now
on conflict (message_id) do update set kept_at = excluded.kept_at, letter = excluded.letter, raw = excluded.raw
