-- erase_records: the records of an erased person name nobody; language and country stay for counts.
--
-- reads   nothing
-- writes  customers, customer_identities
-- params  customers bigint[], now timestamptz
-- re-run  safe: an erased record stays as it is
with renamed as (
    -- some shops use the address as their id
    update customer_identities
    set source_customer_id = 'erased:' || erased_hash(source_customer_id)
    where customer_id = any(cast(:customers as bigint [])) and source_customer_id like '%@%'
    returning customer_id
),

blanked as (
    update customers
    set
        email = null, first_name = null, last_name = null, phone = null, birthday = null, renews_on = null, time_zone = null,
        person_key = null, preferred_channel = null, email_verified = false, erased_at = :now,
        source_customer_id = case
            when source_customer_id like '%@%' then 'erased:' || erased_hash(source_customer_id) else source_customer_id
        end
    where customer_id = any(cast(:customers as bigint [])) and erased_at is null
    returning customer_id
)

select (select count(*) from renamed) as customer_identities, (select count(*) from blanked) as customers
