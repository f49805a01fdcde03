-- Revision 0023: how long consents last by country, the notices that keep them, and how far providers have been asked.

set local search_path = postlude;

create table consent_terms (
    country       text primary key check (country ~ '^[A-Z]{2}$'),
    law           text not null,
    purchase_for  interval check (purchase_for > interval '0'),
    inquiry_for   interval check (inquiry_for > interval '0'),
    notice_every  interval check (notice_every > interval '0')
);
comment on table consent_terms is 'How long a consent lasts by the law of a country: a copy of include/legal.yml, brought up to date before each plan and delivery.';
comment on column consent_terms.purchase_for is 'an implied consent (soft_opt_in) ends so long after the last purchase';
comment on column consent_terms.inquiry_for is 'an implied consent (inquiry) ends so long after the inquiry';
comment on column consent_terms.notice_every is 'after so long the person must have been told that their consent still stands';

create table consent_notices (
    customer_id bigint not null references customers,
    channel     text not null,
    told_at     timestamptz not null,
    by_whom     text not null,
    known_at    timestamptz not null,
    primary key (customer_id, channel, told_at)
);
comment on table consent_notices is 'Append-only: when a person was told to what they agreed and how to withdraw it.';

create table report_cursors (
    channel   text not null,
    provider  text not null,
    list      text not null,
    seen_at   timestamptz not null,
    moved_at  timestamptz not null,
    primary key (channel, provider, list)
);
comment on table report_cursors is 'How far the lists of a provider (events, bounces, ...) have been read; moves in the transaction that lands what was read.';
comment on column report_cursors.seen_at is 'time of the newest entry that was landed';
