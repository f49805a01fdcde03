-- withdrawn: topics of which two people who become one have said no last, and the other one had not.
--
-- reads   consents
-- writes  none
-- params  kept bigint, merged bigint, now timestamptz
-- re-run  safe: reads only
with latest as (
    select distinct on (c.customer_id, c.channel, c.topic)
        c.channel,
        c.topic,
        c.granted
    from consents as c
    where c.customer_id in (:kept, :merged) and c.at <= :now
    order by c.customer_id, c.channel, c.topic, c.at desc, c.granted
)

select
    channel,
    topic
from latest
group by channel, topic
having bool_or(not granted) and bool_or(granted)
