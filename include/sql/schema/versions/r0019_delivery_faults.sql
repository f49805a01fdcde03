-- Revision 0019: lost answers, dead letters and quotas.

set local search_path = postlude;

-- ------------------------------------------------------------------ lost answers

alter table messages add column lost_answers smallint not null default 0;
alter table messages add column resend_at timestamptz;
alter table messages add column quota_day date;
-- the highest priority first, then who waits longest
drop index messages_due;
create index messages_due on messages (channel, priority, send_at, message_id) where state = 'scheduled';
create index messages_again on messages (resend_at) where state = 'unknown' and resend_at is not null;
create index messages_dead on messages (finalized_at) where state = 'failed';
comment on column messages.lost_answers is
    'hand-overs whose answer was lost. Above 0 a copy may have arrived: the message ends as sent or unknown, never as anything else';
comment on column messages.resend_at is
    'when the same bytes of an unknown transactional message are handed over again; null: not by itself';
comment on column messages.quota_day is 'the day on which it took a place of its provider''s quota; a second try on that day takes none';

create or replace view turns as
select
    m.message_id, m.enrolment_id, m.campaign_id, m.step_id, m.customer_id, m.channel, m.kind, m.priority, m.state, m.reason, m.detail,
    m.due_at, m.send_at, m.expires_at, m.handed_over_at, m.finalized_at, false as ghost, m.resend_at
from messages as m
union all
select
    g.message_id, g.enrolment_id, g.campaign_id, g.step_id, g.customer_id, g.channel, g.kind, g.priority,
    case g.state when 'went' then 'sent' else g.state end, g.reason, g.detail,
    g.due_at, g.send_at, g.expires_at, g.went_at, g.finalized_at, true, null
from ghost_messages as g;

create table kept_letters (
    message_id uuid primary key references messages,
    kept_at    timestamptz not null,
    letter     jsonb not null,
    raw        bytea not null
);
comment on table kept_letters is 'Transactional messages as they were handed over, until their answer is known: a second hand-over has the same bytes.';
comment on column kept_letters.letter is 'the fields of the message, for channels that take fields';

-- ------------------------------------------------------------------ what people decided

create table interventions (
    intervention_id bigint generated always as identity primary key,
    message_id uuid not null references messages,
    at         timestamptz not null,
    action     text not null check (action in ('retried', 'dropped', 'settled')),
    from_state text not null,
    from_reason text,
    to_state   text not null,
    decided_by text not null check (decided_by <> ''),
    why        text not null check (why <> ''),
    evidence   text not null default ''
);
create index interventions_message on interventions (message_id, at);
comment on table interventions is 'What a person decided about one dead or unknown message, and why. Append-only.';
comment on column interventions.action is
    'retried: a dead letter is due again, and every rule is read again. dropped: it is dead and has been seen. '
    'settled: an unknown one was said to have arrived or not, with the evidence';

-- ------------------------------------------------------------------ quotas

create table quota_use (
    channel  text not null,
    provider text not null,
    day      date not null,
    used     bigint not null default 0 check (used >= 0),
    primary key (channel, provider, day)
);
comment on table quota_use is 'Places taken today, per channel and rule of include/warmup.yml; its row is the lock that claims queue at.';
comment on column quota_use.provider is 'a provider of the file, others, or all';
