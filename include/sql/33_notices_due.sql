-- notices_due: who agreed to marketing, lives where people must be told so from time to time, and was told too long ago at `by`.
--
-- reads   customers, consents, consent_terms, consent_notices, suppressions
-- params  channel text, topic text, by timestamptz, now timestamptz
-- re-run  safe: only reads
select
    c.customer_id,
    c.source_id,
    c.source_customer_id,
    t.country,
    a.at as agreed_at,
    greatest(a.at, n.told_at) + t.notice_every as due_at
from consent_terms as t
inner join country_names as k on t.country = k.country
inner join customers as c on k.name = lower(btrim(c.country))
cross join lateral (
    select
        s.at,
        s.granted
    from consents as s
    where s.customer_id = c.customer_id and s.channel = :channel and s.topic = :topic and s.at <= :now
    order by s.at desc, s.granted
    limit 1
) as a
cross join lateral (
    select max(s.told_at) as told_at
    from consent_notices as s
    where s.customer_id = c.customer_id and s.channel = :channel and s.told_at <= :now
) as n
where
    a.granted
    and greatest(a.at, n.told_at) + t.notice_every <= :by
    and suppression_of_person(c.customer_id, :channel, 'marketing', :now) is null
order by due_at, c.customer_id
