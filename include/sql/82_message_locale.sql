-- message_locale: the language of the customer who got this message
--
-- reads   messages, customers
-- params  message uuid
-- re-run  safe: reads only
select public_locale(cast(:message as uuid))
