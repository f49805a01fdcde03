-- Revision 0014: ghost messages, the turns of the control group. Nothing that sends reads this table.

set local search_path = postlude;

create table ghost_messages (
    message_id    uuid primary key,
    enrolment_id  uuid not null references enrolments on delete cascade,
    campaign_id   text not null,
    step_id       text not null,
    customer_id   bigint not null references customers on delete cascade,
    channel       text not null,
    kind          text not null check (kind = 'marketing'),
    priority      smallint not null,
    state         text not null check (state in ('scheduled', 'went', 'cancelled', 'skipped', 'expired')),
    reason        text,
    detail        text,
    due_at        timestamptz not null,
    send_at       timestamptz not null,
    expires_at    timestamptz not null,
    went_at       timestamptz,
    finalized_at  timestamptz,
    planned_at    timestamptz not null,
    run_id        text not null,
    unique (enrolment_id, step_id),
    check (expires_at > due_at),
    check ((finalized_at is null) = (state = 'scheduled')),
    check ((went_at is null) = (state <> 'went')),
    check (reason is not null or state in ('scheduled', 'went'))
) with (fillfactor = 70);
create index ghost_messages_due on ghost_messages (channel, send_at, message_id) where state = 'scheduled';
create index ghost_messages_customer on ghost_messages (customer_id, went_at);
comment on table ghost_messages is
    'What somebody in a control group would have been sent, and when: judged by the rules of real messages, never handed over.';
comment on column ghost_messages.state is 'went: its turn has come at went_at; the other states as in messages';
comment on column ghost_messages.went_at is 'the ghost send time: from here the report watches a person who is left alone';
comment on column ghost_messages.message_id is 'the id the message would have had; never in messages';

create view turns as
select
    m.message_id, m.enrolment_id, m.campaign_id, m.step_id, m.customer_id, m.channel, m.kind, m.priority, m.state, m.reason, m.detail,
    m.due_at, m.send_at, m.expires_at, m.handed_over_at, m.finalized_at, false as ghost
from messages as m
union all
select
    g.message_id, g.enrolment_id, g.campaign_id, g.step_id, g.customer_id, g.channel, g.kind, g.priority,
    case g.state when 'went' then 'sent' else g.state end, g.reason, g.detail,
    g.due_at, g.send_at, g.expires_at, g.went_at, g.finalized_at, true
from ghost_messages as g;
comment on view turns is 'Messages and ghosts alike, for rules that hold for both arms of a campaign. Only rules read it; nothing is sent from it.';
