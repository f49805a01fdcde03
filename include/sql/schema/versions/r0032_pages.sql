-- Revision 0032: what the pages in the Airflow UI read and write.

set local search_path = postlude;

-- ------------------------------------------------------------------ counts per day

create table tallies (
    what        text not null check (what in ('message', 'event', 'passage', 'refusal')),
    campaign_id text not null,
    step_id     text not null default '',
    state       text not null,
    reason      text not null default '',
    day         date not null,
    open        boolean not null,
    count       bigint not null check (count > 0),
    primary key (what, campaign_id, day, step_id, state, reason, open)
);
create index tallies_days on tallies (what, day);
comment on table tallies is 'Counts per campaign, step, state and UTC day, for pages that must not count ten million messages; as of tally_state.';
comment on column tallies.state is 'message: its state; event: its kind; passage: the arm; refusal: not_enrolled';
comment on column tallies.reason is 'message, refusal: why; passage: how it ended; empty: none';
comment on column tallies.day is 'message: day it ended, or is due while open; event: day we heard; passage: day it ended, or began while open; refusal: day first seen';
comment on column tallies.open is 'may still change: counted anew every time';

create table tally_state (
    only_row boolean primary key default true check (only_row),
    as_of    timestamptz not null,
    full_at  timestamptz not null
);
comment on table tally_state is 'The instant tallies speak of, and when all of them were last counted from scratch.';

create index messages_finalized on messages (finalized_at) where finalized_at is not null;
create index enrolments_exited on enrolments (exited_at) where exited_at is not null;
create index refusals_first_seen on refusals (first_seen);

-- the pages and `why` look people up by what their shop calls them
create index customers_source_customer on customers (source_customer_id);

-- ------------------------------------------------------------------ people

alter table suppressions add column asked_by text, add column why text;
comment on column suppressions.asked_by is 'the member of staff who suppressed the address by hand';
comment on column suppressions.why is 'the reason given then';

alter table customers add column erased_at timestamptz;
comment on column customers.erased_at is 'nothing that names the person is kept; what the shop still delivers about it is not taken over';

create table erasures (
    erasure_id  bigint generated always as identity primary key,
    customer_id bigint not null references customers,
    at          timestamptz not null,
    by_whom     text not null check (by_whom <> ''),
    why         text not null check (why <> ''),
    rows        jsonb not null
);
comment on table erasures is 'Append-only: who was erased (by id), when, by whom and why, and how many rows of each table it touched.';
create trigger append_only before update or delete on erasures for each statement execute function refuse_change();

create table erased_addresses (
    hash      text primary key check (hash ~ '^[0-9a-f]{64}$'),
    erased_at timestamptz not null
);
comment on table erased_addresses is 'SHA-256 of addresses of erased people: delivered again by a shop, they are suppressed at once.';

create function erased_hash(address_ text) returns text
language sql immutable parallel safe as $$
    select encode(sha256(convert_to('postlude erased ' || address_, 'UTF8')), 'hex')
$$;
comment on function erased_hash is 'What is kept of an erased address (e-mail in its compared form, or number).';

create function stay_erased() returns trigger language plpgsql as $$
begin
    new.email := null; new.first_name := null; new.last_name := null; new.phone := null; new.birthday := null;
    new.person_key := null; new.source_customer_id := old.source_customer_id; new.country := old.country;
    new.time_zone := null; new.locale := old.locale; new.email_verified := false; new.preferred_channel := null;
    return new;
end
$$;
comment on function stay_erased is 'Trigger: what a shop still delivers about an erased account is not taken over.';
create trigger customers_stay_erased before update on customers
    for each row when (old.erased_at is not null) execute function stay_erased();

create function forget_address() returns trigger language plpgsql as $$
begin
    if exists (select from postlude.erased_addresses)
        and exists (select from postlude.customers as c where c.customer_id = new.customer_id and c.erased_at is not null) then
        new.address := null; new.payment := null; new.url := null;
    end if;
    return new;
end
$$;
comment on function forget_address is 'Trigger: where an erased person''s order went is not taken over when a shop delivers it again.';
create trigger orders_forget_address before insert or update on orders
    for each row when (num_nonnulls(new.address, new.payment, new.url) > 0) execute function forget_address();

create function suppress_erased() returns trigger language plpgsql as $$
begin
    if not exists (select from postlude.erased_addresses) then
        return null;
    end if;
    insert into postlude.suppressions (address, scope, reason, since)
    select distinct a.address, 'all', 'erased', now()
    from after_rows as c
    cross join lateral (values (lower(normalize(btrim(c.email), NFKC))), (c.phone)) as a (address)
    where a.address is not null and exists (
        select from postlude.erased_addresses as e where e.hash = postlude.erased_hash(a.address)
    )
    -- lifted by a person since: it stays lifted
    and not exists (
        select from postlude.suppressions as s where s.address = a.address and s.reason = 'erased'
    )
    on conflict (address, scope, reason) where lifted_at is null do nothing;
    return null;
end
$$;
comment on function suppress_erased is 'Trigger: an erased address that a shop delivers again is suppressed before anybody can plan a message.';
create trigger customers_suppress_erased_added after insert on customers referencing new table as after_rows
    for each statement execute function suppress_erased();
create trigger customers_suppress_erased_changed after update on customers referencing new table as after_rows
    for each statement execute function suppress_erased();

-- ------------------------------------------------------------------ approvals are answered on a page too

alter table approval_decisions drop constraint approval_decisions_via_check;
alter table approval_decisions add constraint approval_decisions_via_check check (via in ('airflow', 'cli', 'page', 'system'));
