-- Revision 0026: products bought together, counted anew only where new orders touched them. Articles are compared in capitals:
-- shops that write 85123a and 85123A mean one thing.

set local search_path = postlude;

create index products_article on products (source_id, upper(sku));

create table touched_products (source_id text not null, sku text not null);
comment on table touched_products is 'Articles in orders that changed since the last count, filled by triggers; one may stand here many times.';

create function note_touched_lines() returns trigger language plpgsql as $$
-- append only: two loads at once never wait for each other here
begin
    if tg_op <> 'INSERT' then
        insert into postlude.touched_products
        select distinct o.source_id, upper(l.sku) from before_rows as l join postlude.orders as o using (order_id) where l.sku is not null;
    end if;
    if tg_op <> 'DELETE' then
        insert into postlude.touched_products
        select distinct o.source_id, upper(l.sku) from after_rows as l join postlude.orders as o using (order_id) where l.sku is not null;
    end if;
    return null;
end
$$;
comment on function note_touched_lines is 'Trigger: which articles were in lines that came, went or changed.';
create trigger touched_by_insert after insert on order_lines referencing new table as after_rows
    for each statement execute function note_touched_lines();
create trigger touched_by_update after update on order_lines referencing old table as before_rows new table as after_rows
    for each statement execute function note_touched_lines();
create trigger touched_by_delete after delete on order_lines referencing old table as before_rows
    for each statement execute function note_touched_lines();

create function note_touched_orders() returns trigger language plpgsql as $$
begin
    insert into postlude.touched_products
    select distinct a.source_id, upper(l.sku)
    from after_rows as a
    join before_rows as b using (order_id)
    join postlude.order_lines as l using (order_id)
    where l.sku is not null and (a.counted_at is null, a.cancelled_at) is distinct from (b.counted_at is null, b.cancelled_at);
    return null;
end
$$;
comment on function note_touched_orders is 'Trigger: which articles are in orders that begin or cease to count.';
create trigger articles_touched_by_update after update on orders referencing old table as before_rows new table as after_rows
    for each statement execute function note_touched_orders();

create function note_touched_catalogue() returns trigger language plpgsql as $$
begin
    if tg_op = 'INSERT' then
        insert into postlude.touched_products select distinct source_id, upper(sku) from after_rows;
    else
        insert into postlude.touched_products
        select distinct a.source_id, upper(a.sku)
        from after_rows as a join before_rows as b using (source_id, sku)
        where a.category is distinct from b.category;
    end if;
    return null;
end
$$;
comment on function note_touched_catalogue is 'Trigger: an article that is new or changed its category is ranked anew, and so is what goes with it.';
create trigger touched_by_insert after insert on products referencing new table as after_rows
    for each statement execute function note_touched_catalogue();
create trigger touched_by_update after update on products referencing old table as before_rows new table as after_rows
    for each statement execute function note_touched_catalogue();

create table recommend_state (
    only_row    boolean primary key default true check (only_row),
    as_of       timestamptz not null,
    run_id      text not null,
    rules       text not null
);
comment on table recommend_state is 'The instant the tables below speak of; other rules than these: count from scratch.';

create table product_orders (
    source_id text not null,
    sku       text not null,
    orders    int not null,
    weight    bigint not null,
    primary key (source_id, sku)
);
comment on table product_orders is 'In how many orders an article is; weight: a thousandth each, less for orders with very many articles.';

create table co_purchases (
    source_id text not null,
    sku       text not null,
    other     text not null,
    orders    int not null,
    weight    bigint not null,
    primary key (source_id, sku, other),
    check (sku < other)
);
create index co_purchases_other on co_purchases (source_id, other);
comment on table co_purchases is 'Pairs of articles, and in how many distinct orders both are (exact). Pairs of fewer orders than POSTLUDE_PAIR_ORDERS are left out.';

create table recommendations (
    source_id text not null,
    sku       text not null,
    kind      text not null check (kind in ('similar', 'complementary')),
    place     smallint not null,
    other     text not null,
    score     double precision not null,
    orders    int not null,
    primary key (source_id, sku, kind, place)
);
comment on table recommendations is 'For each article the best others: similar (same category, or none known), complementary (another category, bought together).';
comment on column recommendations.score is 'cosine of the weighted co-purchases, shrunk where few orders speak for it; 0 to 1';

create table bestsellers (
    source_id text not null,
    category  text not null,
    place     smallint not null,
    sku       text not null,
    orders    int not null,
    primary key (source_id, category, place)
);
comment on table bestsellers is 'What most orders of the last 90 days hold, by category and (category empty) in the whole shop.';

create table product_gaps (
    source_id text not null,
    sku       text not null,
    gap_days  numeric not null,
    gaps      int not null,
    primary key (source_id, sku)
);
comment on table product_gaps is 'Median days after which the same customer buys an article of consumption again.';

-- ------------------------------------------------------------------ answers

create view ratings as
select
    e.event_id::text as rating, e.customer_id, n.order_id, null::text as sku, m.campaign_id,
    (e.detail ->> 'score')::int as score,
    case when (e.detail ->> 'score')::int > 5 or e.detail ->> 'scale' = '10' then 10 else 5 end as scale, e.at, e.known_at
from events as e
join messages as m using (message_id)
join enrolments as n using (enrolment_id)
where e.kind = 'rated' and e.detail ->> 'score' ~ '^(10|[0-9])$'
union all
select
    'review:' || r.order_id || ':' || r.review_key, o.customer_id, r.order_id, r.sku, null,
    r.score, case when r.score > 5 or s.settings ->> 'review_scale' = '10' then 10 else 5 end, r.created_at, r.created_at
from reviews as r
join orders as o using (order_id)
join sources as s on s.source_id = o.source_id
where r.score is not null and r.review_key not like 'postlude:%';
comment on view ratings is 'Every answer: clicked in a mail, or a review of the shop. Scale 5: stars; scale 10: 0 to 10, "would you recommend us?".';
