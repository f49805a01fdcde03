-- Revision 0001: tables of the schema `postlude`; views with the stable names in `public`.
-- States are text with a check, not enums: a value can be retired. Every instant is timestamptz (UTC).

set local search_path = postlude;

-- ------------------------------------------------------------------ runs and gates

create table runs (
    run_id      text primary key,
    stage       text not null,
    subject     text not null default '',
    as_of       timestamptz not null,
    origin      text not null default 'manual' check (origin in ('scheduled', 'manual', 'backfill', 'asset', 'cli', 'test')),
    started_at  timestamptz not null,
    finished_at timestamptz,
    outcome     text check (outcome in ('done', 'stopped', 'failed')),
    counts      jsonb not null default '{}'
);
comment on table runs is 'One row per run of one stage: its clock (as_of), where it came from, and what it counted.';
comment on column runs.subject is 'what the stage worked on: a source, a campaign, or empty';

create table gate_results (
    gate_result_id bigint generated always as identity primary key,
    gate        text not null,
    subject     text not null default '',
    run_id      text not null,
    as_of       timestamptz not null,
    checked_at  timestamptz not null,
    success     boolean not null,
    suite_hash  text not null,
    evaluated   int not null,
    failures    jsonb not null default '[]',
    metrics     jsonb not null default '{}',
    docs        text
);
create index gate_results_latest on gate_results (gate, subject, checked_at desc);
comment on table gate_results is 'Every verdict of every gate, with the failing expectations and counts, never with values of rows.';
comment on column gate_results.suite_hash is 'hash of the expectations as evaluated: a thinned-out suite is visible';

-- ------------------------------------------------------------------ what the shops say

create table sources (
    source_id       text primary key,
    shop            text not null,
    kind            text not null,
    currency        text not null check (currency ~ '^[A-Z]{3}$'),
    time_zone       text not null,
    locale          text not null default 'en',
    settings        jsonb not null default '{}',
    complete_until  timestamptz,
    loaded_at       timestamptz
);
comment on table sources is 'One row per source file in include/sources: a shop and where its orders come from.';
comment on column sources.complete_until is 'watermark: newest order time of accepted loads, never from a future-dated row, never moving back';

create table loads (
    load_id     bigint generated always as identity primary key,
    source_id   text not null references sources,
    entity      text not null,
    name        text not null,
    checksum    text not null,
    rows_read   bigint not null,
    run_id      text not null,
    loaded_at   timestamptz not null,
    unique (source_id, entity, checksum)
);
comment on table loads is 'Delivered files by checksum: the same file delivered again counts once.';

create table time_zones (zone text primary key);
comment on table time_zones is 'Zone names the server knows; anything else falls back to the shop''s zone.';
insert into time_zones select name from pg_timezone_names where name not like 'posix%' and name !~ '^(Factory|localtime)$';

create table customers (
    customer_id         bigint generated always as identity primary key,
    source_id           text not null references sources,
    source_customer_id  text not null,
    email               text,
    address             text generated always as (lower(normalize(btrim(email), NFKC))) stored,
    first_name          text,
    last_name           text,
    locale              text,
    time_zone           text,
    country             text,
    marketplace         boolean not null default false,
    created_at          timestamptz,
    updated_at          timestamptz,
    known_at            timestamptz not null,
    unique (source_id, source_customer_id)
);
create index customers_address on customers (address);
comment on table customers is 'One person. Further names of the same person are in customer_identities.';
comment on column customers.address is 'e-mail as compared with suppressions: trimmed, NFKC, lower case; dots and plus stay';
comment on column customers.marketplace is 'known only through a marketplace: counted, never mailed';

create table customer_identities (
    source_id           text not null references sources,
    source_customer_id  text not null,
    customer_id         bigint not null references customers,
    primary key (source_id, source_customer_id)
);
create index customer_identities_customer on customer_identities (customer_id);
comment on table customer_identities is 'What each source calls a customer. Orders find their customer here, never by guess.';

create table consents (
    customer_id  bigint not null references customers,
    channel      text not null,
    topic        text not null,
    granted      boolean not null,
    at           timestamptz not null,
    basis        text not null,
    known_at     timestamptz not null,
    primary key (customer_id, channel, topic, at, granted)
);
comment on table consents is 'Append-only: what a person agreed to or withdrew. The newest row up to an instant holds; no row means no consent.';
comment on column consents.basis is 'how it was given: opt_in, double_opt_in, soft_opt_in, unsubscribe, preference';

create table suppressions (
    suppression_id bigint generated always as identity primary key,
    address      text not null,
    scope        text not null check (scope in ('marketing', 'all')),
    reason       text not null check (reason in ('unsubscribed', 'complained', 'hard_bounce', 'manual', 'erased')),
    since        timestamptz not null,
    event_id     uuid,
    lifted_at    timestamptz,
    lifted_by    text,
    lift_reason  text,
    check ((lifted_at is null) = (lift_reason is null))
);
create unique index suppressions_in_force on suppressions (address, scope, reason) where lifted_at is null;
comment on table suppressions is 'Addresses not to write to, why and since when. Never deleted; lifting needs a reason.';

create table products (
    source_id  text not null references sources,
    sku        text not null,
    name       text not null,
    category   text,
    price      numeric,
    url        text,
    image_url  text,
    in_stock   boolean,
    updated_at timestamptz,
    primary key (source_id, sku)
);
comment on table products is 'The catalogue of each source.';

create table orders (
    order_id        bigint generated always as identity primary key,
    source_id       text not null references sources,
    source_order_id text not null,
    customer_id     bigint references customers,
    currency        text not null,
    status          text,
    placed_at       timestamptz not null,
    paid_at         timestamptz,
    cancelled_at    timestamptz,
    promised_on     date,
    paid_amount     numeric,
    marketplace     text,
    gift            boolean not null default false,
    updated_at      timestamptz,
    known_at        timestamptz not null,
    counted_at      timestamptz,
    counted_amount  numeric,
    unique (source_id, source_order_id)
);
create index orders_counted on orders (customer_id, counted_at, order_id) include (counted_amount, cancelled_at) where counted_at is not null;
create index orders_customer on orders (customer_id);
create index orders_placed on orders (source_id, placed_at);
comment on table orders is 'A purchase. It counts as of an instant when counted_at is before it and it was not cancelled by then.';
comment on column orders.cancelled_at is 'when it was cancelled; a source that does not say when gives the order time';
comment on column orders.counted_at is 'time of the earliest counted line (quantity > 0 and price > 0); null: no customer or no such line';
comment on column orders.counted_amount is 'sum of the counted lines, or the paid amount where the source file says `monetary: paid`';
comment on column orders.paid_amount is 'what was paid in all, with freight and interest; numeric, in the order''s currency';
comment on column orders.updated_at is 'the source''s version: an older delivery of the same order changes nothing';
comment on column orders.known_at is 'when it was first loaded';

create table order_lines (
    order_id    bigint not null references orders on delete cascade,
    line_key    text not null,
    sku         text,
    description text,
    quantity    numeric not null,
    unit_price  numeric not null,
    placed_at   timestamptz not null,
    counted     boolean generated always as (quantity > 0 and unit_price > 0) stored,
    primary key (order_id, line_key)
);
comment on table order_lines is 'Lines of an order. Identical lines inside one file are real and stay; delivered again they count once.';
comment on column order_lines.line_key is 'the source''s line number, or content hash and ordinal among identical lines of the order';

create table shipments (
    order_id      bigint not null references orders on delete cascade,
    shipment_key  text not null,
    carrier       text,
    tracking_url  text,
    shipped_at    timestamptz,
    eta           date,
    delivered_at  timestamptz,
    primary key (order_id, shipment_key)
);
create index shipments_delivered on shipments (delivered_at) where delivered_at is not null;
comment on table shipments is 'Parcels. An order is delivered when its last parcel is.';

create table returns (
    order_id      bigint not null references orders on delete cascade,
    return_key    text not null,
    sku           text,
    requested_at  timestamptz not null,
    received_at   timestamptz,
    refunded_at   timestamptz,
    closed_at     timestamptz,
    primary key (order_id, return_key)
);
comment on table returns is 'Returns asked for, received, refunded. Open (closed_at empty) they stop promotions to the customer.';

create table reviews (
    order_id    bigint not null references orders on delete cascade,
    review_key  text not null,
    sku         text,
    score       smallint check (score between 0 and 10),
    created_at  timestamptz not null,
    answered_at timestamptz,
    primary key (order_id, review_key)
);
comment on table reviews is 'Answers about an order or an item of it.';

create table tickets (
    source_id   text not null references sources,
    ticket_key  text not null,
    customer_id bigint not null references customers,
    opened_at   timestamptz not null,
    closed_at   timestamptz,
    primary key (source_id, ticket_key)
);
create index tickets_customer on tickets (customer_id);
comment on table tickets is 'Open questions to customer service; they stop promotions.';

create table quarantine (
    quarantine_id bigint generated always as identity primary key,
    source_id   text not null references sources,
    entity      text not null,
    row_hash    text not null,
    reasons     text[] not null,
    raw         jsonb not null,
    first_seen  timestamptz not null,
    last_seen   timestamptz not null,
    run_id      text not null,
    released_at timestamptz,
    unique (source_id, entity, row_hash)
);
comment on table quarantine is 'Rows refused at the door, as delivered, with every reason. A corrected delivery of the row releases it.';

-- ------------------------------------------------------------------ features and segments

create table feature_state (
    only_row    boolean primary key default true check (only_row),
    as_of       timestamptz not null,
    run_id      text not null,
    computed_at timestamptz not null
);
comment on table feature_state is 'The instant customer_features and the open segment memberships speak of.';

create table customer_features (
    customer_id     bigint primary key references customers,
    source_id       text not null,
    first_order_at  timestamptz not null,
    last_order_at   timestamptz not null,
    last_order_id   bigint not null,
    recency_days    int not null check (recency_days >= 0),
    frequency       int not null check (frequency > 0),
    monetary        numeric not null,
    median_gap_days numeric,
    stage           text not null check (stage in ('new', 'active', 'at_risk', 'lapsed')),
    stage_since     timestamptz not null,
    next_stage_at   timestamptz,
    loyal_since     timestamptz,
    r_score         smallint not null check (r_score between 1 and 5),
    f_score         smallint not null check (f_score between 1 and 5),
    m_score         smallint not null check (m_score between 1 and 5)
);
create index customer_features_stage on customer_features (stage);
comment on table customer_features is 'Facts per customer with a counted order, as of feature_state.as_of.';
comment on column customer_features.stage is 'new: < 30 days and one order; active: < 90; at_risk: < 180; lapsed: 180 days and more since the last order';
comment on column customer_features.stage_since is 'the instant the stage began, exact';
comment on column customer_features.next_stage_at is 'when the mere passing of time moves the customer to the next stage; null for lapsed';
comment on column customer_features.loyal_since is 'time of the order that crossed the loyalty threshold (orders or spend); null: not crossed';
comment on column customer_features.median_gap_days is 'median days between consecutive orders; null with one order: unknown, never true in a predicate';

create table segment_definitions (
    segment_id  text primary key,
    definition  jsonb not null,
    version     text not null,
    updated_at  timestamptz not null
);
comment on table segment_definitions is 'The segment files in force.';

create table segment_memberships (
    segment_id  text not null references segment_definitions,
    customer_id bigint not null references customers,
    entered_at  timestamptz not null,
    seen_at     timestamptz not null,
    left_at     timestamptz,
    primary key (segment_id, customer_id, seen_at)
);
create unique index segment_members on segment_memberships (segment_id, customer_id) where left_at is null;
comment on table segment_memberships is 'Who was in a segment from when to when. left_at empty: still in.';
comment on column segment_memberships.entered_at is 'when the predicate became true: the feature named by `since` in the segment file, else seen_at';
comment on column segment_memberships.seen_at is 'as_of of the run that first saw the customer in the segment';

create table segment_sizes (
    segment_id  text not null,
    as_of       timestamptz not null,
    customers   bigint not null,
    entered     bigint not null,
    departed    bigint not null,
    primary key (segment_id, as_of)
);
comment on table segment_sizes is 'Size of each segment at each run.';

-- ------------------------------------------------------------------ campaigns

create table calendar_revisions (
    revision    bigint generated always as identity primary key,
    at          timestamptz not null,
    author      text not null,
    why         text not null,
    content     jsonb not null,
    content_hash text not null
);
comment on table calendar_revisions is 'Append-only: what marketers steer (pauses, blackout days, windows). The newest revision holds.';

create table campaign_versions (
    campaign_id text not null,
    version     text not null,
    definition  jsonb not null,
    first_seen  timestamptz not null,
    primary key (campaign_id, version)
);
comment on table campaign_versions is 'Every content of a campaign file that ever planned something.';

create table enrolments (
    enrolment_id uuid primary key,
    campaign_id  text not null,
    version      text not null,
    customer_id  bigint not null references customers,
    order_id     bigint references orders,
    anchor_key   text not null,
    anchor_at    timestamptz not null,
    watch_from   timestamptz not null,
    arm          text not null default 'treated' check (arm in ('treated', 'holdout')),
    enrolled_at  timestamptz not null,
    exited_at    timestamptz,
    exit_reason  text check (exit_reason in ('completed', 'goal_met', 'left_audience', 'suppressed', 'returned', 'stopped', 'expired')),
    run_id       text not null,
    unique (campaign_id, customer_id, anchor_key),
    check ((exited_at is null) = (exit_reason is null)),
    foreign key (campaign_id, version) references campaign_versions
);
create index enrolments_active on enrolments (campaign_id, customer_id) where exited_at is null;
create index enrolments_customer on enrolments (customer_id);
comment on table enrolments is 'One customer''s one passage through one campaign for one anchor; ends with one exit reason.';
comment on column enrolments.anchor_key is 'the business fact it hangs on: order:<id>, lapse:<last order id>, once';
comment on column enrolments.watch_from is 'facts after this instant can end the passage: the anchor, or the last order known when a segment was entered';
comment on column enrolments.arm is 'holdout: left alone on purpose, so that the effect of the campaign can be measured';

create table refusals (
    campaign_id text not null,
    customer_id bigint not null references customers,
    anchor_key  text not null,
    reason      text not null,
    first_seen  timestamptz not null,
    last_seen   timestamptz not null,
    run_id      text not null,
    primary key (campaign_id, customer_id, anchor_key, reason)
);
create index refusals_customer on refusals (customer_id);
comment on table refusals is 'Candidates a campaign did not enrol, each with every reason: a non-send that can be explained.';

create table messages (
    message_id    uuid primary key,
    enrolment_id  uuid not null references enrolments,
    campaign_id   text not null,
    step_id       text not null,
    customer_id   bigint not null references customers,
    channel       text not null default 'email',
    kind          text not null check (kind in ('marketing', 'transactional')),
    template      text not null,
    state         text not null default 'scheduled' check (state in
                  ('scheduled', 'held', 'sending', 'sent', 'failed', 'cancelled', 'skipped', 'expired', 'unknown')),
    due_at        timestamptz not null,
    send_at       timestamptz not null,
    expires_at    timestamptz not null,
    priority      smallint not null default 5,
    attempt       smallint not null default 0,
    max_attempts  smallint not null default 5,
    claimed_by    text,
    claimed_at    timestamptz,
    handed_over_at timestamptz,
    finalized_at  timestamptz,
    provider_id   text,
    reason        text,
    detail        text,
    content_hash  text,
    coupon_code   text unique,
    calendar_revision bigint references calendar_revisions,
    planned_at    timestamptz not null,
    run_id        text not null,
    unique (enrolment_id, step_id),
    check (attempt between 0 and max_attempts),
    check (expires_at > due_at),
    check ((finalized_at is null) = (state in ('scheduled', 'held', 'sending', 'unknown'))),
    check ((claimed_by is not null) or state <> 'sending'),
    check (reason is not null or state not in ('failed', 'cancelled', 'skipped', 'expired', 'held'))
) with (fillfactor = 60);
create index messages_due on messages (channel, send_at, message_id) where state = 'scheduled';
create index messages_open on messages (claimed_at) where state in ('sending', 'unknown');
create index messages_customer on messages (customer_id, handed_over_at);
create index messages_campaign on messages (campaign_id, state);
comment on table messages is 'One step of one enrolment on one channel. One row for ever; what comes after `sent` is an event.';
comment on column messages.state is
    'scheduled -> sending -> sent; back to scheduled when the relay said "not now". held: waits for an approval. '
    'failed: refused for good, or attempts used up. cancelled: the enrolment ended first. skipped: a rule refused it at the '
    'last look. expired: too late to be true. unknown: handed over, answer lost; never sent again by itself when marketing.';
comment on column messages.due_at is 'when the campaign wants it';
comment on column messages.send_at is 'earliest hand-over: due_at moved by send window, blackout or back-off';
comment on column messages.attempt is 'hand-overs started';
comment on column messages.reason is 'one word of docs/reasons.md: why held, failed, cancelled, skipped or expired';
comment on column messages.handed_over_at is 'committed before the final dot of SMTP: from here on the outcome may be unknowable';
comment on column messages.content_hash is 'SHA-256 of the bytes handed over';

create table attempts (
    message_id     uuid not null references messages,
    attempt        smallint not null,
    worker         text not null,
    claimed_at     timestamptz not null,
    handed_over_at timestamptz,
    settled_at     timestamptz,
    outcome        text check (outcome in ('accepted', 'refused', 'deferred', 'ambiguous', 'released')),
    scope          text check (scope in ('relay', 'configuration', 'policy', 'message', 'recipient')),
    reply          text,
    primary key (message_id, attempt)
);
comment on table attempts is 'Every hand-over that was started. handed_over_at is durable before the final dot.';
comment on column attempts.scope is 'who is to blame for a refusal; only the recipient''s own fault suppresses an address';

create table events (
    event_id    uuid primary key,
    message_id  uuid references messages,
    customer_id bigint references customers,
    kind        text not null check (kind in ('delivered', 'deferred', 'bounced', 'complained', 'opened', 'clicked', 'replied',
                                              'rated', 'unsubscribed')),
    at          timestamptz not null,
    known_at    timestamptz not null,
    source      text not null,
    detail      jsonb not null default '{}'
);
create index events_message on events (message_id);
create index events_customer on events (customer_id);
create index events_known on events (known_at);
comment on table events is 'Facts reported about a message or a person. The id is made from the fact: told twice, stored once.';

create table event_inbox (
    inbox_id    bigint generated always as identity primary key,
    received_at timestamptz not null,
    source      text not null,
    dedupe_key  text not null unique,
    payload     jsonb not null,
    taken_at    timestamptz,
    problem     text
);
create index event_inbox_waiting on event_inbox (inbox_id) where taken_at is null;
comment on table event_inbox is 'Landing of what public pages and channels report; the feedback stage turns rows into events.';

-- ------------------------------------------------------------------ stable names for everybody

create view public.orders as
select o.order_id, o.source_id as source, o.source_order_id, o.customer_id, o.currency, o.status, o.placed_at, o.paid_at, o.cancelled_at,
       o.promised_on, o.marketplace, o.gift, o.counted_at, o.counted_amount as amount, o.known_at
from postlude.orders as o;
comment on view public.orders is 'Orders of all sources; amount counts lines with quantity > 0 and price > 0.';

create view public.order_lines as
select l.order_id, o.source_id as source, o.source_order_id, l.line_key, l.sku, l.description, l.quantity, l.unit_price,
       l.quantity * l.unit_price as amount, l.placed_at, l.counted
from postlude.order_lines as l join postlude.orders as o using (order_id);

create view public.customers as
select c.customer_id, c.source_id as source, c.source_customer_id, c.email, c.first_name, c.last_name, c.locale, c.time_zone, c.country,
       c.marketplace, c.created_at, c.known_at
from postlude.customers as c;

create view public.customer_features as
select f.customer_id, f.source_id as source, c.source_customer_id, s.as_of, f.first_order_at, f.last_order_at, f.recency_days, f.frequency,
       f.monetary, f.median_gap_days, f.stage, f.stage_since, f.next_stage_at, f.loyal_since, f.r_score, f.f_score, f.m_score
from postlude.customer_features as f join postlude.customers as c using (customer_id) cross join postlude.feature_state as s;
comment on view public.customer_features is 'Facts per customer as of the instant in as_of (the last `segment` run).';

create view public.segments as
select m.segment_id as segment, m.customer_id, c.source_id as source, c.source_customer_id, m.entered_at, m.seen_at
from postlude.segment_memberships as m join postlude.customers as c using (customer_id) where m.left_at is null;
comment on view public.segments is 'Present members of every segment.';

create view public.enrolments as select * from postlude.enrolments;
create view public.messages as select * from postlude.messages;
create view public.events as select * from postlude.events;
create view public.quarantine as
select quarantine_id, source_id as source, entity, reasons, raw, first_seen, last_seen, run_id, released_at from postlude.quarantine;
