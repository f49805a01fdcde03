-- suppress_for_message: no marketing any more to the address of the customer who got this message, from this commit on
--
-- reads   messages, customers
-- writes  suppressions: one row per address in force
-- params  message uuid, now timestamptz
-- re-run  safe: a suppression in force stays as it is; one that was lifted is set again, for the person asked again
select public_unsubscribe(cast(:message as uuid), :now)
