-- erase_suppressions: of an erased person's addresses a hash stays, so that they are suppressed when a shop delivers them again.
--
-- reads   customers
-- writes  erased_addresses, suppressions
-- params  customers bigint[], now timestamptz
-- re-run  safe
with theirs as (
    select distinct a.address
    from customers as c
    cross join lateral (values (c.address), (c.phone)) as a (address)
    where c.customer_id = any(cast(:customers as bigint [])) and a.address is not null
),

hashed as (
    insert into erased_addresses (hash, erased_at)
    select erased_hash(t.address), :now
    from theirs as t
    on conflict do nothing
    returning hash
),

blanked as (
    update suppressions as s
    set address = 'erased:' || erased_hash(s.address)
    from theirs as t
    where s.address = t.address
    returning s.suppression_id
)

select (select count(*) from hashed) as erased_addresses, (select count(*) from blanked) as suppressions
