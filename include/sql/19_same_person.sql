-- same_person: people who by one declared rule are the same: a verified address, or an id that several shops share on purpose.
-- The first of each group is the one to keep: no marketplace, with an address, known longest.
--
-- reads   customers
-- writes  none
-- params  match text, across text[], verified_by text[]
-- re-run  safe: reads only
with records as (
    select
        coalesce(c.merged_into, c.customer_id) as person,
        case cast(:match as text) when 'email' then c.address else c.person_key end as shared
    from customers as c
    where
        c.source_id = any(cast(:across as text []))
        and case cast(:match as text)
            when 'email' then not c.marketplace and (c.email_verified or c.source_id = any(cast(:verified_by as text [])))
            else true
        end
),

people as (
    select distinct
        shared,
        person
    from records
    where shared is not null
)

select array_agg(p.person order by c.marketplace, c.address is null, p.person) as people
from people as p
inner join customers as c on p.person = c.customer_id
group by p.shared
having count(*) > 1
order by min(p.person)
