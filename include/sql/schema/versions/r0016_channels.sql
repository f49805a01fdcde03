-- Revision 0016: telephone numbers, banners, and what providers report as they reported it.

set local search_path = postlude;

alter table customers
    add column phone text check (phone ~ '^[+][1-9][0-9]{6,14}$'),
    add column preferred_channel text check (preferred_channel ~ '^[a-z][a-z0-9_]{1,47}$');
create index customers_phone on customers (phone) where phone is not null;
comment on column customers.phone is 'number for text messages, E.164 (+4930123456); null: none';
comment on column customers.preferred_channel is 'where the customer wants to be reached; used when the step offers it, else the step''s own order';

create table banners (
    message_id  uuid primary key,
    person      uuid not null,
    campaign_id text not null,
    title       text not null,
    body        text not null,
    link        text,
    shown_from  timestamptz not null,
    shown_until timestamptz not null
);
create index banners_person on banners (person, shown_until);
comment on table banners is 'What the shop''s own pages show to a customer until it expires. Holds nobody''s data.';
comment on column banners.person is 'uuid_of(person, source, customer): opaque outside';

alter table event_inbox
    add column raw jsonb,
    add constraint event_inbox_raw_is_an_object check (jsonb_typeof(raw) = 'object');
create index event_inbox_raw on event_inbox (inbox_id) where taken_at is null and raw is not null;
comment on column event_inbox.raw is 'a provider''s report as it came, signature verified; `payload` is what the feedback stage made of it';

create table webhook_tokens (
    provider  text not null,
    token     text not null,
    body_hash text not null,
    seen_at   timestamptz not null,
    primary key (provider, token)
);
comment on table webhook_tokens is 'Tokens of signed reports, each good for one body: Mailgun signs the token and not the body.';

alter table events drop constraint events_kind_check;
alter table events add constraint events_kind_check check (kind in (
    'delivered', 'deferred', 'bounced', 'complained', 'opened', 'clicked', 'scanned', 'replied', 'rated', 'unsubscribed'
));
comment on column events.kind is 'scanned: a program followed a link or loaded a picture (mail scanner, privacy proxy); never taken for a person';

create index messages_provider on messages (provider_id) where provider_id is not null;

-- the same definition, so that these views carry the new columns
create or replace view public.customers as
select c.customer_id, c.source_id as source, c.source_customer_id, c.email, c.first_name, c.last_name, c.locale, c.time_zone, c.country,
       c.marketplace, c.created_at, c.known_at, c.phone, c.preferred_channel
from postlude.customers as c
where c.merged_into is null;

-- planning asks for every customer; the index of those in force cannot answer "lifted later than now"
create index suppressions_address on suppressions (address);
