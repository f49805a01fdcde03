-- update_customers: take over what a delivery says about customers we know; a blank never erases what is known.
--
-- reads   staging_customers
-- writes  customers
-- params  source text
-- re-run  safe: an older or equal version changes nothing
with newest as (
    select distinct on (source_customer_id) *
    from staging_customers
    where cardinality(problems) = 0
    order by source_customer_id, updated_at desc nulls last, _file desc nulls last, _row desc
)

update customers as c
set
    email = coalesce(n.email, c.email),
    first_name = coalesce(n.first_name, c.first_name),
    last_name = coalesce(n.last_name, c.last_name),
    locale = coalesce(n.locale, c.locale),
    time_zone = coalesce(n.time_zone, c.time_zone),
    country = coalesce(n.country, c.country),
    phone = coalesce(to_phone(n.phone), c.phone),
    birthday = coalesce(n.birthday, c.birthday),
    renews_on = coalesce(n.renews_on, c.renews_on),
    marketplace = coalesce(n.marketplace, c.marketplace),
    -- an address is proved or not; a new one is not because the old one was
    email_verified = coalesce(n.email_verified, c.email_verified and coalesce(n.email, c.email) is not distinct from c.email),
    person_key = coalesce(n.person_key, c.person_key),
    created_at = coalesce(least(n.created_at, c.created_at), n.created_at),
    updated_at = coalesce(n.updated_at, c.updated_at)
from newest as n
where
    c.source_id = :source and c.source_customer_id = n.source_customer_id
    and (c.updated_at is null or n.updated_at > c.updated_at)
    and (
        coalesce(n.email, c.email), coalesce(n.first_name, c.first_name), coalesce(n.last_name, c.last_name),
        coalesce(n.locale, c.locale), coalesce(n.time_zone, c.time_zone), coalesce(n.country, c.country),
        coalesce(n.marketplace, c.marketplace),
        coalesce(n.email_verified, c.email_verified and coalesce(n.email, c.email) is not distinct from c.email),
        coalesce(n.person_key, c.person_key), coalesce(least(n.created_at, c.created_at), n.created_at),
        coalesce(n.updated_at, c.updated_at), coalesce(to_phone(n.phone), c.phone),
        coalesce(n.birthday, c.birthday), coalesce(n.renews_on, c.renews_on)
    ) is distinct from (
        c.email, c.first_name, c.last_name, c.locale, c.time_zone, c.country, c.marketplace, c.email_verified,
        c.person_key, c.created_at, c.updated_at, c.phone, c.birthday, c.renews_on
    )
