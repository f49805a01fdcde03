-- merge_consents: append what people agreed to or withdrew.
--
-- reads   staging_consents, customer_identities, consents
-- writes  consents
-- params  source text, now timestamptz
-- re-run  safe: the same statement is there once
with said as (
    select
        i.customer_id,
        s.channel,
        s.topic,
        s.granted,
        s.at,
        s.basis,
        row_number() over (partition by i.customer_id, s.channel, s.topic order by s.at, s._row) as nth
    from staging_consents as s
    inner join customer_identities as i on i.source_id = :source and i.source_customer_id = s.source_customer_id
    where cardinality(s.problems) = 0
)

insert into consents (customer_id, channel, topic, granted, at, basis, known_at)
select
    s.customer_id,
    s.channel,
    s.topic,
    s.granted,
    s.at,
    s.basis,
    :now
from said as s
where
    -- what is only inferred, from an order or an inquiry, never speaks after the person did; each inquiry counts, of orders the first
    s.basis not in ('soft_opt_in', 'inquiry')
    or (
        s.basis = 'soft_opt_in'
        and s.nth = 1
        and not exists (
            select from consents as c
            where c.customer_id = s.customer_id and c.channel = s.channel and c.topic = s.topic
        )
    )
    or (
        s.basis = 'inquiry'
        and not exists (
            select from consents as c
            where
                c.customer_id = s.customer_id and c.channel = s.channel and c.topic = s.topic
                and c.basis not in ('soft_opt_in', 'inquiry')
        )
        and not exists (
            select from said as c
            where
                c.customer_id = s.customer_id and c.channel = s.channel and c.topic = s.topic
                and c.basis not in ('soft_opt_in', 'inquiry')
        )
    )
on conflict do nothing
