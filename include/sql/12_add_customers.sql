-- add_customers: new customers with their identity; ids follow the source's own ids, so two loads of one feed agree.
--
-- reads   staging_customers, customer_identities
-- writes  customers, customer_identities
-- params  source text, now timestamptz
-- re-run  safe: a known identity is not added again
with newest as (
    select distinct on (source_customer_id) *
    from staging_customers
    where cardinality(problems) = 0
    order by source_customer_id, updated_at desc nulls last, _file desc nulls last, _row desc
),

added as (
    insert into customers (
        source_id, source_customer_id, email, first_name, last_name, locale, time_zone, country, phone, birthday, renews_on,
        marketplace, email_verified, person_key, created_at, updated_at, known_at
    )
    select
        :source, n.source_customer_id, n.email, n.first_name, n.last_name, n.locale, n.time_zone, n.country, to_phone(n.phone),
        n.birthday, n.renews_on, coalesce(n.marketplace, false), coalesce(n.email_verified, false), n.person_key, n.created_at, n.updated_at, :now
    from newest as n
    where not exists (
        select from customer_identities as i
        where i.source_id = :source and i.source_customer_id = n.source_customer_id
    )
    order by n.source_customer_id collate "C"
    returning customer_id, source_customer_id
)

insert into customer_identities (source_id, source_customer_id, customer_id)
select
    :source,
    source_customer_id,
    customer_id
from added
