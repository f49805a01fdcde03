-- Revision 0010: the columns of each feed, replays of the quarantine, and one person in several shops.

set local search_path = postlude;

create table feed_columns (
    source_id   text not null references sources,
    entity      text not null,
    column_name text not null,
    first_seen  timestamptz not null,
    run_id      text not null,
    primary key (source_id, entity, column_name)
);
comment on table feed_columns is 'Columns each raw entity of a source came with: one that is new, or stays away, is told by the gate `orders`.';

alter table quarantine
    add column replays     int not null default 0,
    add column replayed_at timestamptz,
    add column corrected   jsonb;
comment on column quarantine.corrected is 'values a person gave for a replay, instead of those delivered (raw stays as it came)';
comment on column quarantine.replays is 'how often the row was put through the checks again by `postlude quarantine replay`';

-- ------------------------------------------------------------------ one person in several shops

alter table customers
    add column email_verified boolean not null default false,
    add column person_key     text,
    add column merged_into    bigint references customers,
    add check (merged_into <> customer_id);
create index customers_person_key on customers (person_key) where person_key is not null;
create index customers_merged on customers (merged_into) where merged_into is not null;
comment on column customers.email_verified is 'the shop says that the person proved to own the address';
comment on column customers.person_key is 'an id that several shops share on purpose: a loyalty or CRM number';
comment on column customers.merged_into is 'the person this record belongs to (identities.yml or by hand); null: a person of its own';

alter table orders add column source_customer_id text;
alter table tickets add column source_customer_id text;
comment on column orders.source_customer_id is 'what the source called the customer: tells whose order it is when a merge is undone';

create table customer_merges (
    merge_id   bigint generated always as identity primary key,
    kept       bigint not null references customers,
    merged     bigint not null references customers,
    rule       text not null,
    by_whom    text not null,
    why        text not null,
    at         timestamptz not null,
    moved      jsonb not null,
    split_at   timestamptz,
    split_by   text,
    split_why  text,
    check ((split_at is null) = (split_why is null)),
    check (kept <> merged)
);
create unique index customer_merges_in_force on customer_merges (merged) where split_at is null;
create index customer_merges_kept on customer_merges (kept);
comment on table customer_merges is 'Which records were found to be one person, by which declared rule, and what moved; a split is recorded in the row and is never merged again by a rule.';
comment on column customer_merges.moved is 'ids of enrolments, messages, events, consents and the like that belonged to `merged`';

create or replace view public.customers as
select c.customer_id, c.source_id as source, c.source_customer_id, c.email, c.first_name, c.last_name, c.locale, c.time_zone, c.country,
       c.marketplace, c.created_at, c.known_at
from postlude.customers as c
where c.merged_into is null;
comment on view public.customers is 'One row per person; further records of a person are in customer_identities and customer_merges.';
