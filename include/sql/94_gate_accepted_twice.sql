-- gate_accepted_twice: messages of which the relay took two copies; must be empty.
--
-- reads   attempts
-- writes  none
-- params  none
-- re-run  safe: reads only
select message_id
from attempts
where outcome = 'accepted'
group by message_id
having count(*) > 1
