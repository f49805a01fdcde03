-- message_locale: the language of the customer who got this message
--
-- reads   messages, customers
-- params  message uuid
-- re-run  safe: reads only
select c.locale
from messages as m
join customers as c using (customer_id)
where m.message_id = cast(:message as uuid)
