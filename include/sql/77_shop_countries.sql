-- shop_countries: the countries most customers of the shops live in, as far as the newest thousands of them tell.
--
-- reads   customers, country_names
-- re-run  safe: only reads
select n.country
from (
    select c.country from customers as c
    where c.country is not null
    order by c.customer_id desc
    limit 5000
) as c
inner join country_names as n on n.name = lower(btrim(c.country))
group by n.country
having count(*) > 1
order by count(*) desc, n.country
limit 8
