-- Borders of the fifths. Replaced by every `postlude init`.
-- All are "as of now_": a fact counts when it happened before that instant.

set search_path = postlude;

drop function if exists fifths(text, timestamptz);
create or replace function fifths(source text, now_ timestamptz, afresh boolean) returns setof quintile_borders
language plpgsql stable
set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off as $$
-- The last customer of each of the first four fifths, found by walking one index for each measure: no row is sorted, and no
-- customer's score is written. The walk begins at the border known from last time: how many customers lie up to it now is told
-- by facts_changed, so it is as long as the border's way since. Afresh, it begins at the border before, and goes over all.
declare
    known quintile_borders;
    found quintile_borders;
    was int[];
    share int[];
    place bigint; -- how many customers lie up to where the walk begins
    ahead bigint;
    latest timestamptz := '-infinity';
    orders int := 0;
    spent numeric := '-infinity';
    id bigint;
    day interval := interval '24 hours';
    bucket interval;
    tied bigint;
begin
    if not afresh then
        select * into known from quintile_borders as b where b.source_id = source and b.last_order_at is not null;
    end if;
    if known.customers is null then
        select count(*) into found.customers from customer_facts as f where f.source_id = source;
    else
        select known.customers + coalesce(sum(c.weight), 0) into found.customers from facts_changed as c where c.source_id = source;
    end if;
    if found.customers = 0 then
        return;
    end if;
    found.source_id := source;
    share := fifths_end(found.customers);
    was := fifths_end(known.customers);

    id := 0;
    for i in 1..4 loop
        place := coalesce(share[i - 1], 0);
        if known.customers is not null then
            orders := known.frequency[i];
            id := known.frequency_ids[i];
            select was[i] + coalesce(sum(c.weight), 0) into place from facts_changed as c
            where c.source_id = source and (c.frequency, c.customer_id) <= (orders, id);
        end if;
        ahead := share[i] - place;
        if ahead > 0 then
            select f.frequency, f.customer_id into orders, id from customer_facts as f
            where f.source_id = source and (f.frequency, f.customer_id) > (orders, id)
            order by f.frequency, f.customer_id offset ahead - 1 limit 1;
        else
            select f.frequency, f.customer_id into orders, id from customer_facts as f
            where f.source_id = source and (f.frequency, f.customer_id) <= (orders, id)
            order by f.frequency desc, f.customer_id desc offset - ahead limit 1;
        end if;
        found.frequency[i] := orders;
        found.frequency_ids[i] := id;
    end loop;

    id := 0;
    for i in 1..4 loop
        place := coalesce(share[i - 1], 0);
        if known.customers is not null then
            spent := known.monetary[i];
            id := known.monetary_ids[i];
            select was[i] + coalesce(sum(c.weight), 0) into place from facts_changed as c
            where c.source_id = source and (c.monetary, c.customer_id) <= (spent, id);
        end if;
        ahead := share[i] - place;
        if ahead > 0 then
            select f.monetary, f.customer_id into spent, id from customer_facts as f
            where f.source_id = source and (f.monetary, f.customer_id) > (spent, id)
            order by f.monetary, f.customer_id offset ahead - 1 limit 1;
        else
            select f.monetary, f.customer_id into spent, id from customer_facts as f
            where f.source_id = source and (f.monetary, f.customer_id) <= (spent, id)
            order by f.monetary desc, f.customer_id desc offset - ahead limit 1;
        end if;
        found.monetary[i] := spent;
        found.monetary_ids[i] := id;
    end loop;

    id := 0;
    for i in 1..4 loop
        place := coalesce(share[i - 1], 0);
        if known.customers is not null then
            latest := known.last_order_at[i];
            id := known.last_order_ids[i];
            select was[i] + coalesce(sum(c.weight), 0) into place from facts_changed as c
            where c.source_id = source and (c.last_order_at, c.customer_id) <= (latest, id);
        end if;
        ahead := share[i] - place;
        if ahead > 0 then
            select f.last_order_at, f.customer_id into latest, id from customer_facts as f
            where f.source_id = source and (f.last_order_at, f.customer_id) > (latest, id)
            order by f.last_order_at, f.customer_id offset ahead - 1 limit 1;
        else
            select f.last_order_at, f.customer_id into latest, id from customer_facts as f
            where f.source_id = source and (f.last_order_at, f.customer_id) <= (latest, id)
            order by f.last_order_at desc, f.customer_id desc offset - ahead limit 1;
        end if;
        found.last_order_at[i] := latest;
        found.last_order_ids[i] := id;
        -- days of recency rise with the age of the last order, but within one such day the customer id decides
        found.recency_days[i] := floor(extract(epoch from now_ - latest) / 86400);
        bucket := found.recency_days[i] * day;
        select count(*) into place from customer_facts as f
        where
            f.source_id = source and f.last_order_at > now_ - bucket - day
            and (f.last_order_at, f.customer_id) <= (latest, id);
        with same_day as materialized (
            select f.customer_id from customer_facts as f
            where f.source_id = source and f.last_order_at > now_ - bucket - day and f.last_order_at <= now_ - bucket
        )

        select d.customer_id into tied from same_day as d order by d.customer_id offset place - 1 limit 1;
        found.recency_ids[i] := tied;
    end loop;
    return next found;
end
$$;
comment on function fifths is 'Borders between the fifths of a source by recency as of now_, orders and spend: what ntile(5) with ties by customer id gives.';

create or replace function fifths_end(customers bigint) returns int[]
language sql immutable parallel safe as $$
    -- ntile: the first (n mod 5) fifths hold one more
    select array_agg(i * (customers / 5) + least(i, customers % 5) order by i) from generate_series(1, 4) as i
$$;
comment on function fifths_end is 'How many of so many customers lie up to the end of each of the first four fifths.';
