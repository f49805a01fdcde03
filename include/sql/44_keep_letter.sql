-- keep_letter: the bytes of a transactional message, with its intent: should the answer be lost, the same bytes go again.
--
-- writes  kept_letters
-- params  message_id uuid, now timestamptz, letter jsonb, raw bytea
-- re-run  safe: one letter per message; a new attempt of a message that nobody can have got replaces it
insert into kept_letters (message_id, kept_at, letter, raw)
values (:message_id, :now, :letter, :raw)
on conflict (message_id) do update set kept_at = excluded.kept_at, letter = excluded.letter, raw = excluded.raw
