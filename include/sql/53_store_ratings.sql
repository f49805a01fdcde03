-- store_ratings: a score clicked in a mail is a review of the order the mail was about.
--
-- reads   events, messages, enrolments
-- writes  reviews
-- params  event_ids uuid[]
-- re-run  safe: one review per message; a later answer replaces an earlier one
insert into reviews (order_id, review_key, score, created_at, answered_at)
select distinct on (n.order_id, m.message_id)
    n.order_id, 'postlude:' || m.message_id, cast(e.detail ->> 'score' as smallint), e.at, e.at
from events as e
inner join messages as m on e.message_id = m.message_id
inner join enrolments as n on m.enrolment_id = n.enrolment_id
where
    e.event_id = any(cast(:event_ids as uuid []))
    and e.kind = 'rated'
    -- how the parcel came, or what somebody thinks of the shop, is no review of the item
    and coalesce(e.detail ->> 'about', 'item') = 'item'
    and n.order_id is not null
    and coalesce(e.detail ->> 'score', '') ~ '^(10|[0-9])$'
order by n.order_id, m.message_id, e.at desc
on conflict (order_id, review_key) do update set score = excluded.score, answered_at = excluded.answered_at
where reviews.answered_at < excluded.answered_at
