-- take_token: whether a signed token may be used for this body; the first body that comes with it has it for ever.
--
-- reads, writes  webhook_tokens
-- params         provider text, token text, body_hash text, now timestamptz
-- re-run         safe: the same body may come again
insert into webhook_tokens (provider, token, body_hash, seen_at)
values (:provider, :token, :body_hash, :now)
on conflict (provider, token) do update set seen_at = webhook_tokens.seen_at
returning body_hash = cast(:body_hash as text) as good
