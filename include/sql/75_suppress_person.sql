-- suppress_person: every address of a person is suppressed by hand, with who and why.
--
-- reads   customers
-- writes  suppressions
-- params  customers bigint[], scope text, by text, why text, now timestamptz
-- re-run  safe: one suppression in force per address, scope and reason
with theirs as (
    select distinct a.address
    from customers as c
    cross join lateral (values (c.address), (c.phone)) as a (address)
    where c.customer_id = any(cast(:customers as bigint [])) and a.address is not null
),

added as (
    insert into suppressions (address, scope, reason, since, asked_by, why)
    select t.address, :scope, 'manual', :now, :by, :why
    from theirs as t
    on conflict (address, scope, reason) where lifted_at is null do nothing
    returning suppression_id
)

select (select count(*) from theirs) as addresses, (select count(*) from added) as added
