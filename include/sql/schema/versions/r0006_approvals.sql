-- Revision 0006: approvals of unusual volumes, who decided what, and canaries.

set local search_path = postlude;

create table approvals (
    approval_id   bigint generated always as identity primary key,
    campaign_id   text not null,
    run_id        text not null,
    asked_at      timestamptz not null,
    expires_at    timestamptz not null,
    audience_hash text not null,
    messages      bigint not null check (messages > 0),
    people        bigint not null check (people > 0),
    causes        jsonb not null,
    facts         jsonb not null
);
create index approvals_campaign on approvals (campaign_id, approval_id desc);
comment on table approvals is 'Append-only: every request for a named approval of a campaign''s planned messages, with what spoke against them.';
comment on column approvals.expires_at is 'when the last of its messages expires: nothing can be released after it';
comment on column approvals.audience_hash is
    'SHA-256 over the sorted (customer, step) pairs of its messages; an approval releases these and no others';
comment on column approvals.causes is 'why it was asked for: [{cause, day, found, limit}]';
comment on column approvals.facts is 'what a person needs to decide: counts by day, step and shop, difference to the last release, a sample of customer ids';

create table approval_decisions (
    approval_id   bigint primary key references approvals,
    decision      text not null check (decision in ('approved', 'rejected', 'changed', 'superseded', 'expired')),
    decided_by    text not null check (decided_by <> ''),
    via           text not null check (via in ('airflow', 'cli', 'system')),
    comment       text,
    at_most       bigint check (at_most > 0),
    audience_hash text not null,
    released      bigint not null default 0,
    cancelled     bigint not null default 0,
    at            timestamptz not null,
    check (decision in ('approved', 'rejected', 'changed') or via = 'system')
);
comment on table approval_decisions is 'Append-only: the one decision about each request: who, when, how, and what it did.';
comment on column approval_decisions.decision is
    'changed: it was approved, but the audience was no longer the one asked about, so nothing was released. '
    'superseded: a later run asked about a wider audience. expired: nobody decided while its messages were true';
comment on column approval_decisions.audience_hash is 'hash of the audience as found at the decision';
comment on column approval_decisions.at_most is 'the approver allowed only so many messages; the rest waits for another request';

create function refuse_change() returns trigger language plpgsql as $$
begin
    raise exception '% is append-only', tg_table_name using errcode = 'restrict_violation';
end
$$;
comment on function refuse_change is 'Trigger of append-only tables: what was decided is not rewritten.';
create trigger append_only before update or delete on approvals for each statement execute function refuse_change();
create trigger append_only before update or delete on approval_decisions for each statement execute function refuse_change();

create table canaries (
    canary_id   bigint generated always as identity primary key,
    campaign_id text not null,
    approval_id bigint references approvals,
    run_id      text not null,
    started_at  timestamptz not null,
    messages    bigint not null,
    outcome     text check (outcome in ('passed', 'failed', 'over')),
    judged_at   timestamptz,
    figures     jsonb not null default '{}',
    check ((outcome is null) = (judged_at is null))
);
create index canaries_open on canaries (canary_id) where outcome is null;
comment on table canaries is 'Large releases of which a small share goes first; the rest waits until that share has been watched.';
comment on column canaries.messages is 'messages of the release, the canary''s share among them';
comment on column canaries.outcome is 'over: nothing of the release was waiting any more';
comment on column canaries.figures is 'what was seen of the share: handed over, refused, bounced, complained';

create table canary_messages (
    canary_id  bigint not null references canaries,
    message_id uuid not null references messages,
    drawn_at   timestamptz not null,
    primary key (canary_id, message_id)
);
comment on table canary_messages is 'The share that goes first.';

alter table messages
    add column approval_id bigint references approvals,
    add column canary_id bigint references canaries;
comment on column messages.approval_id is 'the newest request for approval it was part of; empty: its plan was as usual';
comment on column messages.canary_id is 'the release whose canary it waited for, or was part of';
create index messages_approval on messages (approval_id) where approval_id is not null;
create index messages_canary on messages (canary_id) where canary_id is not null;
create index messages_held on messages (expires_at) where state = 'held';
