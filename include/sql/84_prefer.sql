-- prefer: keep what a person chose; gives what else stands against writing to them
--
-- reads   messages, customers
-- writes  consents, suppressions: lifted; breaks
-- params  message uuid, wanted jsonb, length interval, now timestamptz
-- re-run  safe: what is already so is not stored again
select public_prefer(cast(:message as uuid), cast(:wanted as jsonb), cast(:length as interval), :now)
