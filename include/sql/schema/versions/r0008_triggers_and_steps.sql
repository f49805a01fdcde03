-- Revision 0008: what the triggers by date and from outside read, and the variant a message was given.

set local search_path = postlude;

alter table customers
    add column birthday  date,
    add column renews_on date;
create index customers_birthday on customers (birthday) where birthday is not null;
create index customers_renews_on on customers (renews_on) where renews_on is not null;
comment on column customers.birthday is 'as told by the shop; 1 January is not believed where too many have it, see birthday_believed';
comment on column customers.renews_on is 'the next renewal of a subscription, where the shop tells one';

create table external_events (
    source_id   text not null references sources,
    event_key   text not null,
    customer_id bigint not null references customers,
    kind        text not null check (kind ~ '^[a-z][a-z0-9_]{1,47}$'),
    at          timestamptz not null,
    known_at    timestamptz not null,
    detail      jsonb not null default '{}',
    primary key (source_id, event_key)
);
create index external_events_kind on external_events (kind, at);
create index external_events_customer on external_events (customer_id);
comment on table external_events is 'What other systems tell about a customer (a quiz done, a warranty registered): starts campaigns with `external: <kind>`.';
comment on column external_events.event_key is 'the other system''s own id of the event: told twice, stored once';
comment on column external_events.known_at is 'when it was told; a run as of an earlier instant does not see it';

create index returns_requested on returns (requested_at);
create index orders_cancelled on orders (cancelled_at) where cancelled_at is not null;
create index segment_departures on segment_memberships (segment_id, left_at) where left_at is not null;

alter table messages add column variant text;
comment on column messages.variant is 'name of the variant of the step, drawn by a salted hash of the customer; null: the step has one letter only';

create or replace view public.messages as select * from postlude.messages;
