-- take_token: whether a signed token may be used for this body; the first body that comes with it has it for ever.
--
-- reads, writes  webhook_tokens
-- params         provider text, token text, body_hash text, now timestamptz
-- re-run         safe: the same body may come again
select public_take_token(:provider, :token, :body_hash, :now) as good
